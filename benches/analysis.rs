//! Decomposition and clustering: PCA of 20,000 x 2048, linear CKA, t-SNE of 5,000, silhouette and k-means.
//! benches/peers/analysis.py runs the same beside scikit-learn.

#[path = "analysis_work.rs"]
mod work;

use criterion::{Criterion, criterion_group, criterion_main};
use work::{TASKS, Work};

fn analysis(bench: &mut Criterion) {
    let mut group = bench.benchmark_group("analysis");
    group.sample_size(10);
    for task in TASKS {
        let work = Work::drawn(task).expect("the data are made here");
        group.bench_function(task, |b| b.iter(|| work.run().expect("it runs")));
    }
    group.finish();
}

criterion_group!(benches, analysis);
criterion_main!(benches);
