//! The one place where the plan's figures come from: each with its unit and its source.
//!
//! A figure that is wrong for your machine is wrong here alone.

/// A figure that the plan takes for granted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assumption {
    /// What it is.
    pub name: &'static str,
    /// In `unit`.
    pub value: f64,
    /// Unit of `value`; empty for a share or a count.
    pub unit: &'static str,
    /// Where it is from.
    pub source: &'static str,
}

macro_rules! assumptions {
    ($($constant:ident = $value:expr, $unit:literal, $name:literal, $source:literal;)*) => {
        $(#[doc = $name]
        pub const $constant: f64 = $value;)*

        /// All of them, in the order of the plan's table.
        pub const ALL: &[Assumption] = &[$(
            Assumption { name: $name, value: $constant, unit: $unit, source: $source },
        )*];
    };
}

assumptions! {
    GPU_FLOPS = 989e12, "FLOP/s", "H200, bf16 products, dense", "NVIDIA H200 data sheet; the 1,979 there is with sparsity";
    GPU_FLOPS_F64 = 67e12, "FLOP/s", "H200, f64 products (statistics)", "NVIDIA H200 data sheet, tensor cores";
    GPU_BANDWIDTH = 4.8e12, "B/s", "H200, memory", "NVIDIA H200 data sheet";
    GPU_MEMORY = 141e9, "B", "H200, memory size", "NVIDIA H200 data sheet";
    GPU_LINK = 450e9, "B/s", "H200 to H200, one direction", "NVLink 4: 900 GB/s in both directions together";
    GPU_TO_HOST = 12e9, "B/s", "H200 to host, pageable memory", "assumed: PCIe 5 x16 gives 64 GB/s at most, to pinned memory; libtorch's plain copy goes through a staging buffer";
    NODE_DEVICES = 8.0, "", "H200 in a node", "NVIDIA DGX H200 data sheet";
    NODE_HOST_MEMORY = 2e12, "B", "node, host memory", "NVIDIA DGX H200 data sheet";
    NODE_HOST_FLOPS_F64 = 3e12, "FLOP/s", "node, host's f64 products", "assumed: 112 cores of 2 GHz at 32 FLOP a cycle give 7";
    ONE_HOST_MEMORY = 256e9, "B", "one H200, host memory", "an eighth of a node";
    ONE_HOST_FLOPS_F64 = 0.4e12, "FLOP/s", "one H200, host's f64 products", "an eighth of a node";
    DISK_RATE = 5e9, "B/s", "H200 and node, disk, writing", "assumed: one client of a parallel file system, or two NVMe drives";
    DISK_SIZE = 100e12, "B", "H200 and node, the most disk to be had", "assumed: a project's share of a file system; a DGX H200 itself has 30.7 TB";
    CPU_FLOPS = 0.2e12, "FLOP/s", "two cores, f32 products", "measured on 2 cores with AVX-512: 0.18 to 0.25";
    CPU_FLOPS_F64 = 0.1e12, "FLOP/s", "two cores, f64 products", "half of f32";
    CPU_BANDWIDTH = 18e9, "B/s", "two cores, memory", "measured: 11 with one thread, 18.5 with two";
    CPU_MEMORY = 24e9, "B", "two cores, memory size", "the machine that the tests run on";
    CPU_DISK_RATE = 1e9, "B/s", "two cores, disk, writing", "measured with dd and fdatasync, three times: 0.35 to 1.7";
    CPU_DISK_SIZE = 250e9, "B", "two cores, disk size", "the machine that the tests run on";
    GPU_NUMBER = 2.0, "B", "a number on a GPU, and as kept from there", "bf16";
    CPU_NUMBER = 4.0, "B", "a number on a CPU, and as kept from there", "f32: bf16 gains nothing without matrix units";
    LOCAL_SHARE = 0.35, "", "share of the products' peak that a local forward pass reaches", "assumed; no GPU was tried";
    SERVED_SHARE = 0.5, "", "share of the products' peak that vLLM reaches on prompts", "assumed; 33,000 tokens/s published for a 70B on 8 H100 (Activault) are 0.58";
    STATISTICS_SHARE = 0.5, "", "share of the f64 peak that covariances reach", "assumed: large square products";
    MEMORY_SHARE = 0.9, "", "share of a device's memory that may be planned with", "vLLM's default is 0.9 to 0.92";
    BATCH = 4096.0, "tokens", "tokens in one pass", "assumed: far above the 206 where an H200 is bound by its memory";
    WORKING_COPIES = 6.0, "", "vectors as wide as the stream alive at once in a block", "counted in a block: stream, normed, attention in and out, sums";
    IN_FLIGHT = 16.0, "prompts", "prompts that one worker has under way at a server", "the default of `Remote::in_flight`";
    SHARED_WRITE = 2.4e9, "B/s", "into the shared directory, one writer a replica", "measured in /dev/shm with dd, three times: 2.4 to 2.7";
    SHARED_READ = 4e9, "B/s", "out of the shared directory, one reader a replica", "measured in /dev/shm with dd, three times: 4.0 to 6.2";
    REQUEST = 2e-3, "s", "a request's own time at the client (HTTP, JSON, waiting for the file)", "assumed";
    INDEX = 28.0, "B", "token, prompt and position of each token", "measured: 24 in the shard, 4 in the Parquet index";
    MOST_SECONDS = 30.0 * 86400.0, "s", "the longest run that is still a plan", "assumed: 30 days";
}
