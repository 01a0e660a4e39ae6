//! Files with a few bytes changed: an error or the same numbers, never a crash.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use thalweg::anyhow::Result;
use thalweg::rng::Rng;
use thalweg::{Cache, Model, Plan, Point, Tokens};

use crate::support::saved::{saved, small};
use crate::support::{same, scratch};

/// One seeded change of a few bytes.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, header: usize) {
    if bytes.is_empty() {
        return;
    }
    let place = if rng.chance(0.85) { rng.below(8 + header) } else { rng.below(bytes.len()) };
    let at = place.min(bytes.len() - 1);
    match rng.below(6) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = *rng.pick(b"0123456789,:[]{}\"- e\\\xff\x00").unwrap(),
        2 => bytes.truncate(at),
        3 => bytes.insert(at, *rng.pick(b"0123456789,]}\"").unwrap()),
        4 => drop(bytes.remove(at)),
        _ => {
            let n = (1 + rng.below(24)).min(bytes.len() - at);
            let from = rng.below(bytes.len() - n + 1);
            let piece = bytes[from..from + n].to_vec();
            bytes[at..at + n].copy_from_slice(&piece);
        }
    }
}

#[test]
fn hundreds_of_mutated_files_give_an_error_or_a_model_that_runs() {
    let dir = saved("fuzz");
    let path = dir.join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let old = small().named_weights();
    let (mut rng, mut refused) = (Rng::new(2024), 0);
    for trial in 0..600 {
        let mut bytes = whole.clone();
        for _ in 0..=rng.below(3) {
            mutate(&mut rng, &mut bytes, header);
        }
        let data_as_it_was = bytes.ends_with(&whole[8 + header..]);
        fs::write(&path, &bytes).unwrap();
        let loaded = catch_unwind(AssertUnwindSafe(|| Model::load(&dir)));
        match loaded.unwrap_or_else(|_| panic!("trial {trial} panicked")) {
            Err(error) => {
                assert!(!error.to_string().contains('\n'), "trial {trial}: {error}");
                refused += 1;
            }
            Ok(model) => {
                for (name, w) in model.named_weights() {
                    let equal = same(&w, &old[&name]) || !data_as_it_was;
                    assert!(equal && w.size() == old[&name].size(), "trial {trial}: {name}");
                }
            }
        }
    }
    assert!(refused > 300, "only {refused} of 600 were refused");
}

#[test]
fn mutated_caches_give_an_error_or_a_tensor() {
    let path = scratch("fuzz-cache").join("run.safetensors");
    let tokens = Tokens::from_ids(&[vec![3, 1], vec![2]]).unwrap();
    let plan = Plan::new().cache(Point::Z).cache(Point::Ln1Scale);
    small().run(&tokens, &plan).unwrap().cache.save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut rng = Rng::new(7);
    for trial in 0..300 {
        let mut bytes = whole.clone();
        mutate(&mut rng, &mut bytes, header);
        fs::write(&path, &bytes).unwrap();
        let read = || -> Result<()> {
            let cache = Cache::open(&path)?;
            cache.sites().try_for_each(|site| cache.get(site).map(drop))
        };
        let done = catch_unwind(AssertUnwindSafe(read));
        assert!(done.is_ok(), "trial {trial} panicked");
    }
}
