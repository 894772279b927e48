//! A bounded cache that forgets what was used least recently.

/// Holds at most `capacity` values, the most recently used last.
///
/// Lookups are linear: it is meant for a handful of values that are expensive to make.
pub(super) struct SessionCache<K, V> {
    entries: Vec<(K, V)>,
    capacity: usize,
}

impl<K: PartialEq, V> SessionCache<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a cache has room for at least one value");
        Self { entries: Vec::with_capacity(capacity), capacity }
    }

    /// The value of `key`, made if it is not there. Room is made first, so that the old value's
    /// memory is free before the new one takes its own.
    pub(super) fn get_or_insert_with<E>(&mut self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<&mut V, E> {
        let entry = if let Some(found) = self.entries.iter().position(|(k, _)| *k == key) {
            self.entries.remove(found)
        } else {
            if self.entries.len() == self.capacity {
                self.entries.remove(0);
            }
            (key, make()?)
        };
        self.entries.push(entry);
        Ok(&mut self.entries.last_mut().expect("one was pushed").1)
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(cache: &mut SessionCache<u8, u8>, key: u8) -> bool {
        let mut made = false;
        let value = cache.get_or_insert_with(key, || {
            made = true;
            Ok::<_, ()>(key)
        });
        assert_eq!(value.copied(), Ok(key));
        made
    }

    #[test]
    fn forgets_the_least_recently_used() {
        let mut cache = SessionCache::new(2);
        assert!(touch(&mut cache, 1));
        assert!(touch(&mut cache, 2));
        assert!(!touch(&mut cache, 1));
        assert!(touch(&mut cache, 3));
        assert!(!touch(&mut cache, 1));
        assert!(touch(&mut cache, 2));
    }

    #[test]
    fn a_failure_is_not_kept() {
        let mut cache: SessionCache<u8, u8> = SessionCache::new(1);
        assert_eq!(cache.get_or_insert_with(1, || Err("no")), Err("no"));
        assert!(touch(&mut cache, 1));
    }
}
