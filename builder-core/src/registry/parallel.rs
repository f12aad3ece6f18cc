//! The same for many blobs, several at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Blobs that travel at once, each way.
const AT_ONCE: usize = 4;

/// Does `work` for each of `items`, a few at a time. After the first error nothing more is begun.
///
/// # Errors
/// The first error.
pub(crate) fn for_each<T: Sync, E: Send>(items: &[T], work: impl Fn(&T) -> Result<(), E> + Sync) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let failed = || failure.lock().unwrap_or_else(PoisonError::into_inner);
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed().is_some() {
                return;
            }
            if let Err(error) = work(item) {
                failed().get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..AT_ONCE.min(items.len()) {
            scope.spawn(run);
        }
        run();
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_done_once_and_the_first_error_ends_it() {
        let items: Vec<usize> = (0..100).collect();
        let done = Mutex::new(Vec::new());
        let note = |item: &usize| {
            done.lock().unwrap().push(*item);
            Ok::<(), usize>(())
        };
        for_each(&items, note).unwrap();
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, items);
        let begun = AtomicUsize::new(0);
        let fail = |item: &usize| {
            begun.fetch_add(1, Ordering::Relaxed);
            Err::<(), usize>(*item)
        };
        assert!(for_each(&items, fail).unwrap_err() < AT_ONCE);
        assert!(begun.into_inner() <= AT_ONCE);
        assert_eq!(for_each::<u8, ()>(&[], |_| Err(())), Ok(()));
    }
}
