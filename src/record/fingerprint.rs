//! The hash of a model's weights.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use sha2::{Digest, Sha256};
use tch::{Device, Tensor};

use crate::show::Bar;

/// Bytes hashed at a time.
const CHUNK: i64 = 1 << 22;

/// The tensors of a model and the hashes found so far. A model's clones share it.
#[derive(Clone)]
pub(crate) struct Fingerprint(Arc<Mutex<Kept>>);

struct Kept {
    tensors: Vec<(String, Tensor)>,
    /// By the number of changes in place that libtorch had counted.
    known: BTreeMap<i64, String>,
}

impl Kept {
    fn version(&self) -> i64 {
        let version = |(_, t): &(String, Tensor)| t.f_internal_version().unwrap_or(0);
        self.tensors.iter().map(version).sum()
    }

    fn hash(&mut self) -> String {
        let version = self.version();
        let Kept { tensors, known } = self;
        known.entry(version).or_insert_with(|| sha256(tensors)).clone()
    }
}

impl Fingerprint {
    /// Of tensors in a fixed order, with their names.
    pub(crate) fn new(tensors: Vec<(String, Tensor)>) -> Self {
        Fingerprint(Arc::new(Mutex::new(Kept { tensors, known: BTreeMap::new() })))
    }

    /// The hash of the weights as they are now.
    pub(crate) fn hash(&self) -> String {
        lock(&self.0).hash()
    }

    /// What a result keeps of the weights as they are now: no memory.
    pub(crate) fn weigh(&self) -> Weighed {
        Weighed { kept: Arc::downgrade(&self.0), version: lock(&self.0).version() }
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint")
    }
}

/// The weights a result was found with, by reference: it does not keep them in memory.
#[derive(Clone)]
pub(crate) struct Weighed {
    kept: Weak<Mutex<Kept>>,
    version: i64,
}

impl Weighed {
    /// The hash, or why it cannot be told.
    pub(crate) fn hash(&self) -> String {
        let Some(kept) = self.kept.upgrade() else {
            return "not hashed: the model was dropped before the record was asked for".to_owned();
        };
        let mut kept = lock(&kept);
        if let Some(hash) = kept.known.get(&self.version) {
            return hash.clone();
        }
        if kept.version() != self.version {
            return "not hashed: the weights have been changed in place since".to_owned();
        }
        kept.hash()
    }
}

/// The same weights in the same memory, unchanged.
impl PartialEq for Weighed {
    fn eq(&self, other: &Self) -> bool {
        Weak::ptr_eq(&self.kept, &other.kept) && self.version == other.version
    }
}

/// A panic while hashing leaves nothing half done.
fn lock(kept: &Mutex<Kept>) -> std::sync::MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Name, kind, shape and bytes of each tensor, in order.
fn sha256(tensors: &[(String, Tensor)]) -> String {
    let _guard = tch::no_grad_guard();
    let mut hasher = Sha256::new();
    let mut bytes = Vec::new();
    let all = |(_, tensor): &(String, Tensor)| tensor.numel() * tensor.kind().elt_size_in_bytes();
    let mut bar = Bar::new("hash of the weights", tensors.iter().map(all).sum::<usize>()).bytes();
    for (name, tensor) in tensors {
        hasher.update(format!("{name} {:?} {:?}\n", tensor.kind(), tensor.size()));
        let size = tensor.kind().elt_size_in_bytes();
        let rows = tensor.size().first().copied().unwrap_or(1);
        let row_bytes = (tensor.numel() / rows.max(1) as usize * size).max(1) as i64;
        let at_once = (CHUNK / row_bytes).max(1);
        let mut row = 0;
        while row < rows {
            let n = at_once.min(rows - row);
            let part = tensor.detach().narrow(0, row, n).to_device(Device::Cpu).contiguous();
            bytes.resize(part.numel() * size, 0);
            part.copy_data_u8(&mut bytes, part.numel());
            hasher.update(&bytes);
            bar.add(bytes.len());
            row += n;
        }
    }
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
