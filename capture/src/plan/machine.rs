//! The machines that the plan knows.

use super::assumptions as a;

/// What computes.
#[derive(Debug, Clone, PartialEq)]
pub struct Device {
    /// Products of the model's numbers, FLOP/s at most.
    pub flops: f64,
    /// Products in f64, FLOP/s at most.
    pub flops_f64: f64,
    /// Bytes/s of its memory.
    pub bandwidth: f64,
    /// Bytes of its memory.
    pub memory: f64,
    /// Bytes of a number.
    pub number: f64,
    /// Bytes/s to the host; none where the device is the host.
    pub to_host: Option<f64>,
    /// Bytes/s to another device, in one direction.
    pub link: f64,
}

/// One machine: equal devices, a host, a disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// As the command line names it.
    pub name: &'static str,
    /// As tables name it.
    pub title: &'static str,
    /// Number of devices.
    pub devices: f64,
    /// Each of them.
    pub device: Device,
    /// Bytes of the host's memory.
    pub host_memory: f64,
    /// Products in f64 on the host, FLOP/s at most.
    pub host_flops_f64: f64,
    /// Bytes/s onto the disk, all writers together.
    pub disk_rate: f64,
    /// Bytes of the disk.
    pub disk_size: f64,
}

impl Machine {
    /// Two cores without a GPU.
    pub fn cpu() -> Machine {
        Machine {
            name: "cpu",
            title: "two cores",
            devices: 1.0,
            device: Device {
                flops: a::CPU_FLOPS,
                flops_f64: a::CPU_FLOPS_F64,
                bandwidth: a::CPU_BANDWIDTH,
                memory: a::CPU_MEMORY,
                number: a::CPU_NUMBER,
                to_host: None,
                link: a::CPU_BANDWIDTH,
            },
            host_memory: a::CPU_MEMORY,
            host_flops_f64: a::CPU_FLOPS_F64,
            disk_rate: a::CPU_DISK_RATE,
            disk_size: a::CPU_DISK_SIZE,
        }
    }

    /// One H200 and an eighth of a node's host.
    pub fn one() -> Machine {
        Machine {
            name: "h200",
            title: "one H200",
            devices: 1.0,
            device: h200(),
            host_memory: a::ONE_HOST_MEMORY,
            host_flops_f64: a::ONE_HOST_FLOPS_F64,
            disk_rate: a::DISK_RATE,
            disk_size: a::DISK_SIZE,
        }
    }

    /// A node of H200.
    pub fn node() -> Machine {
        Machine {
            name: "node",
            title: "a node of 8 H200",
            devices: a::NODE_DEVICES,
            host_memory: a::NODE_HOST_MEMORY,
            host_flops_f64: a::NODE_HOST_FLOPS_F64,
            ..Machine::one()
        }
    }

    /// All of them, small first.
    pub fn all() -> [Machine; 3] {
        [Machine::cpu(), Machine::one(), Machine::node()]
    }
}

fn h200() -> Device {
    Device {
        flops: a::GPU_FLOPS,
        flops_f64: a::GPU_FLOPS_F64,
        bandwidth: a::GPU_BANDWIDTH,
        memory: a::GPU_MEMORY,
        number: a::GPU_NUMBER,
        to_host: Some(a::GPU_TO_HOST),
        link: a::GPU_LINK,
    }
}
