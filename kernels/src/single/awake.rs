//! Threads that stay awake from layer to layer and from image to image.

use std::hint::spin_loop;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rayon::Yield;

/// How long threads look for work behind the last one that they found.
const LINGER: Duration = Duration::from_micros(200);

/// Threads at most that stay awake beside the caller.
const HELPERS: usize = 15;

/// When an image was last begun or a part of one taken, in nanoseconds from the first image.
static LAST: AtomicU64 = AtomicU64::new(0);

/// Whether threads are awake already.
static AWAKE: AtomicBool = AtomicBool::new(false);

fn now() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Has the other threads of the caller's pool look for work until they find none for a fifth of a millisecond,
/// instead of falling asleep between two layers. To wake a thread can take longer than a layer of one
/// image. Call it for each image; outside of a pool it does nothing.
pub fn stay_awake() {
    let Some(caller) = rayon::current_thread_index() else {
        return;
    };
    LAST.store(now(), Ordering::Relaxed);
    if rayon::current_num_threads() == 1 || AWAKE.swap(true, Ordering::Relaxed) {
        return;
    }
    rayon::spawn_broadcast(move |context| {
        if context.index() != caller && context.index() <= HELPERS {
            linger();
            AWAKE.store(false, Ordering::Relaxed);
        }
    });
}

fn linger() {
    let linger = LINGER.as_nanos() as u64;
    while now() < LAST.load(Ordering::Relaxed) + linger {
        if matches!(rayon::yield_now(), Some(Yield::Executed)) {
            LAST.fetch_max(now(), Ordering::Relaxed);
        } else {
            spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn threads_that_stay_awake_take_work_and_let_go() {
        for threads in [1, 2, 20] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let sum: usize = pool.unwrap().install(|| {
                let image = |_| {
                    stay_awake();
                    (0..1_000_usize).into_par_iter().sum::<usize>()
                };
                (0..20).map(image).sum()
            });
            assert_eq!(sum, 20 * 499_500);
        }
        // Outside of a pool there is nobody to keep awake.
        stay_awake();
    }
}
