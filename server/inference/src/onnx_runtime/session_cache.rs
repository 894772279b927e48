//! A bounded cache of sessions, by least recent use.

/// Holds values by group and key: at most `capacity` of each group, the most recently used last.
///
/// Lookups are linear: it is meant for a handful of values that are expensive to make.
pub(super) struct SessionCache<G, K, V> {
    entries: Vec<((G, K), V)>,
    capacity: usize,
}

impl<G: PartialEq, K: PartialEq, V> SessionCache<G, K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a cache has room for at least one value");
        Self { entries: Vec::with_capacity(capacity), capacity }
    }

    /// The value of `key`, made if it is not there. Room is made first, so that the old value's
    /// memory is free before the new one takes its own.
    pub(super) fn get_or_insert_with<E>(
        &mut self,
        key: (G, K),
        make: impl FnOnce() -> Result<V, E>,
    ) -> Result<&mut V, E> {
        let entry = if let Some(found) = self.entries.iter().position(|(k, _)| *k == key) {
            self.entries.remove(found)
        } else {
            self.make_room(&key.0);
            (key, make()?)
        };
        self.entries.push(entry);
        Ok(&mut self.entries.last_mut().expect("one was pushed").1)
    }

    /// Puts a value in the place of one of the same key, if there is one.
    pub(super) fn insert(&mut self, key: (G, K), value: V) {
        self.entries.retain(|(k, _)| *k != key);
        self.make_room(&key.0);
        self.entries.push((key, value));
    }

    /// Drops all values of a group; says whether there were any.
    pub(super) fn forget(&mut self, group: &G) -> bool {
        let before = self.entries.len();
        self.entries.retain(|((g, _), _)| g != group);
        self.entries.len() < before
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    fn make_room(&mut self, group: &G) {
        let mut places = (0..self.entries.len()).filter(|&place| self.entries[place].0.0 == *group);
        let oldest = places.next();
        let others = places.count();
        if let Some(oldest) = oldest.filter(|_| others + 1 >= self.capacity) {
            self.entries.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(cache: &mut SessionCache<char, u8, u8>, key: (char, u8)) -> bool {
        let mut made = false;
        let value = cache.get_or_insert_with(key, || {
            made = true;
            Ok::<_, ()>(key.1)
        });
        assert_eq!(value.copied(), Ok(key.1));
        made
    }

    #[test]
    fn forgets_the_least_recently_used() {
        let mut cache = SessionCache::new(2);
        assert!(touch(&mut cache, ('a', 1)));
        assert!(touch(&mut cache, ('a', 2)));
        assert!(!touch(&mut cache, ('a', 1)));
        assert!(touch(&mut cache, ('a', 3)));
        assert!(!touch(&mut cache, ('a', 1)));
        assert!(touch(&mut cache, ('a', 2)));
    }

    #[test]
    fn groups_do_not_push_each_other_out() {
        let mut cache = SessionCache::new(1);
        assert!(touch(&mut cache, ('a', 1)));
        assert!(touch(&mut cache, ('b', 1)));
        assert!(!touch(&mut cache, ('a', 1)));
        assert!(cache.forget(&'a') && !cache.forget(&'a'));
        assert!(!touch(&mut cache, ('b', 1)));
        assert!(touch(&mut cache, ('a', 1)));
    }

    #[test]
    fn what_is_put_in_replaces_what_was_there() {
        let mut cache = SessionCache::new(1);
        assert!(touch(&mut cache, ('a', 1)));
        cache.insert(('a', 1), 1);
        cache.insert(('a', 2), 2);
        assert!(!touch(&mut cache, ('a', 2)));
        assert!(touch(&mut cache, ('a', 1)), "there is room for one");
    }

    #[test]
    fn a_failure_is_not_kept() {
        let mut cache: SessionCache<char, u8, u8> = SessionCache::new(1);
        assert_eq!(cache.get_or_insert_with(('a', 1), || Err("no")), Err("no"));
        assert!(touch(&mut cache, ('a', 1)));
    }
}
