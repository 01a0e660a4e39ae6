//! Batches through stages: the closed form against discrete events.

use thalweg_capture::plan::{Jitter, Line, Simulated, Stage, simulate};

fn stage(seconds: f64) -> Stage {
    Stage { name: "a stage", seconds }
}

fn line(workers: usize, own: &[f64], shared: f64) -> Line {
    Line { workers, own: own.iter().map(|s| stage(*s)).collect(), shared: stage(shared) }
}

/// Each stage the slowest once, one to eight workers, the shared disk slow and quick.
fn lines() -> Vec<Line> {
    let mut all = Vec::new();
    for own in [&[5.0, 1.0, 2.0][..], &[1.0, 5.0, 2.0], &[1.0, 2.0, 5.0], &[3.0], &[2.0, 2.0]] {
        for workers in [1, 2, 3, 8] {
            for shared in [0.25, 1.0, 6.0] {
                all.push(line(workers, own, shared));
            }
        }
    }
    all
}

fn plain(line: &Line, batches: usize) -> Simulated {
    simulate(line, batches, 2, Jitter::None, 0)
}

#[track_caller]
fn close(a: f64, b: f64, within: f64) {
    assert!((a - b).abs() <= within * b.abs(), "{a} and {b}");
}

#[test]
fn three_batches_through_three_stages_fill_and_drain_as_by_hand() {
    // compute 2, copy 3, disk 1: done at 6, 9, 12.
    let line = line(1, &[2.0, 3.0], 1.0);
    assert_eq!(plain(&line, 3).done, [6.0, 9.0, 12.0]);
    assert_eq!(line.seconds(3), 12.0);
    assert_eq!(line.bottleneck().seconds, 3.0);
}

#[test]
fn two_workers_share_a_slow_disk_as_by_hand() {
    // Both come at 2; the disk takes 3 for each: done at 5, 8, 11, 14.
    let line = line(2, &[2.0], 3.0);
    assert_eq!(plain(&line, 4).done, [5.0, 8.0, 11.0, 14.0]);
    assert_eq!(line.seconds(4), 14.0);
    assert_eq!(line.rate(), 1.0 / 3.0);
}

#[test]
fn fill_and_drain_are_exact_for_any_line_number_of_batches_and_queue() {
    for line in lines() {
        for batches in [0, 1, 2, 3, 7, 16, 17] {
            for room in [0, 1, 4] {
                let seen = simulate(&line, batches, room, Jitter::None, 0);
                let expected = line.seconds(batches);
                assert!(
                    (seen.seconds - expected).abs() < 1e-9,
                    "{line:?}, {batches}, {room}: {seen:?}"
                );
            }
        }
    }
}

#[test]
fn the_steady_rate_is_that_of_the_slowest_stage() {
    for line in lines() {
        close(plain(&line, 4000).rate(), line.rate(), 0.02);
    }
}

#[test]
fn the_steady_rate_with_jitter_is_that_of_the_slowest_stage_if_queues_are_long_and_it_is_alone() {
    for slow in 0..3 {
        let mut seconds = [1.0; 3];
        seconds[slow] = 1.5;
        let line = line(1, &seconds[..2], seconds[2]);
        let seen = simulate(&line, 40_000, 64, Jitter::Uniform(0.5), 7);
        close(seen.rate(), line.rate(), 0.02);
    }
}

#[test]
fn queues_stay_within_their_room_and_a_slow_disk_holds_the_first_stage_back() {
    for room in [0, 1, 3] {
        for jitter in [Jitter::None, Jitter::Uniform(0.9), Jitter::Exponential] {
            let line = line(3, &[1.0, 1.0], 5.0);
            let seen = simulate(&line, 2000, room, jitter, 3);
            assert!(seen.longest.iter().all(|longest| *longest <= room), "{seen:?}");
            // Of one worker: one batch in each of its stages and at the disk, and what queues hold.
            assert!(seen.under_way <= 3 + 2 * room, "{} under way", seen.under_way);
        }
    }
    let unbounded = simulate(&line(3, &[1.0, 1.0], 5.0), 2000, 2000, Jitter::None, 3);
    assert!(unbounded.under_way > 500, "without bounds the batches pile up before the disk");
}

#[test]
fn no_batch_is_lost_or_done_twice_and_a_worker_keeps_its_order() {
    let seen = simulate(&line(3, &[1.0, 2.0], 0.8), 500, 1, Jitter::Exponential, 11);
    for worker in 0..3 {
        let own: Vec<_> = seen.order.iter().filter(|batch| **batch % 3 == worker).collect();
        assert!(own.is_sorted());
    }
    let mut all = seen.order;
    all.sort_unstable();
    assert!(all.into_iter().eq(0..500));
}

#[test]
fn jitter_makes_a_line_no_quicker_than_its_work_and_no_slower_than_its_slowest_batches() {
    let share = 0.4;
    for seed in 0..20 {
        let line = line(1, &[2.0, 3.0], 2.5);
        let seen = simulate(&line, 300, 1, Jitter::Uniform(share), seed);
        let most_work = seen.busy.iter().fold(0.0f64, |most, busy| most.max(*busy));
        assert!(seen.seconds >= most_work);
        // Longer batches never make a line quicker: with all at their longest it is the closed form's.
        assert!(seen.seconds <= line.seconds(300) * (1.0 + share));
        assert!(seen.seconds >= line.seconds(300) * (1.0 - share));
        let same = simulate(&line, 300, 1, Jitter::Uniform(share), seed);
        assert_eq!(same, seen, "a seed means the same numbers");
    }
}

#[test]
fn a_longer_queue_never_costs_time() {
    for seed in 0..10 {
        let line = line(1, &[2.0, 2.0], 2.0);
        let times = [0, 1, 2, 4, 8]
            .map(|room| simulate(&line, 400, room, Jitter::Exponential, seed).seconds);
        assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
    }
}

/// Two equal exponential stages with room for `b` between them: the number past the first is a walk
/// on 0..=b+2 with equal steps up and down, so all are equally likely, and the second stands still
/// in one of b+3.
#[test]
fn two_equal_stages_with_exponential_batches_lose_what_queueing_theory_says() {
    for room in [0, 1, 3, 10] {
        let line = line(1, &[1.0], 1.0);
        let seen = simulate(&line, 400_000, room, Jitter::Exponential, 5);
        let expected = (room as f64 + 2.0) / (room as f64 + 3.0);
        close(seen.rate(), expected, 0.01);
    }
}
