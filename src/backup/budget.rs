//! A bounded number of bytes for objects: taken by the thread that assembles, given back when an object is stored.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// What is left of it, and who waits for more. Clones share.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<(Mutex<usize>, Condvar)>);

/// Bytes taken; given back when this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new((Mutex::new(bytes), Condvar::new())))
    }

    /// Waits until so many bytes are left, and takes them. Blocks.
    pub(super) fn take(&self, bytes: usize) -> Share {
        let (left, more) = &*self.0;
        let left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = more.wait_while(left, |left| *left < bytes).unwrap_or_else(PoisonError::into_inner);
        *left -= bytes;
        Share { budget: self.clone(), bytes }
    }
}

impl Share {
    /// Gives back what is beyond so many bytes.
    pub(super) fn shrink(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        let (left, more) = &*self.budget.0;
        *left.lock().unwrap_or_else(PoisonError::into_inner) += surplus;
        more.notify_all();
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_until_enough_is_given_back() {
        let budget = Budget::new(10);
        let mut first = budget.take(8);
        let waiter = {
            let budget = budget.clone();
            std::thread::spawn(move || drop(budget.take(9)))
        };
        first.shrink(2);
        assert!(!waiter.is_finished());
        drop(first);
        waiter.join().unwrap();
        assert_eq!(*budget.0.0.lock().unwrap(), 10);
    }
}
