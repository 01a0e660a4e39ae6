//! Work on rows, shared among threads without a choice that could change a result.

/// Fewer rows than this are worked on by the calling thread alone.
const FEW: usize = 512;

/// Calls `work(first row, rows)` on equal stretches of `out`, `width` entries a row, one a thread.
/// What is written for a row must depend on that row alone.
pub(super) fn by_rows<T: Send>(
    threads: usize,
    out: &mut [T],
    width: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    let rows = out.len() / width;
    if threads <= 1 || rows < FEW {
        return work(0, out);
    }
    let share = rows.div_ceil(threads);
    std::thread::scope(|scope| {
        let mut parts = out.chunks_mut(share * width).enumerate();
        let own = parts.next();
        for (part, rows) in parts {
            let work = &work;
            scope.spawn(move || work(part * share, rows));
        }
        if let Some((_, rows)) = own {
            work(0, rows);
        }
    });
}

/// As many as libtorch uses.
pub(super) fn usual_threads() -> usize {
    tch::get_num_threads().max(1) as usize
}
