//! Entries in a bounded number of bytes; the one that was used least recently goes
//! first.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use super::entry::Entry;
use crate::http::Fields;
use crate::time::Instant;

/// The most responses that are kept for one target; beyond, the oldest goes.
pub const MAX_VARIANTS: usize = 16;

/// What a key costs beyond its own bytes and its entries': the map's node, the order's,
/// and the list of variants.
const KEY_OVERHEAD: usize = 112;

/// What happened so far, and what is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Entries held.
    pub entries: usize,
    /// Bytes held.
    pub bytes: usize,
    /// Entries stored.
    pub stored: u64,
    /// Entries that went for want of room.
    pub evicted: u64,
    /// Entries that were made invalid.
    pub invalidated: u64,
}

#[derive(Debug)]
struct Slot {
    variants: Vec<Rc<Entry>>,
    // Its place in the order.
    used: u64,
    bytes: usize,
}

/// Stored responses by key.
#[derive(Debug)]
pub struct Store {
    max_bytes: usize,
    slots: BTreeMap<Rc<[u8]>, Slot>,
    order: BTreeMap<u64, Rc<[u8]>>,
    clock: u64,
    counts: StoreCounts,
}

/// What was found.
#[derive(Clone, Debug)]
pub enum Found {
    /// The entry that answers.
    Entry(Rc<Entry>),
    /// There are entries, but `Vary` lets none answer.
    Other,
    /// Nothing.
    Nothing,
}

impl Store {
    /// An empty store of at most `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            slots: BTreeMap::new(),
            order: BTreeMap::new(),
            clock: 0,
            counts: StoreCounts::default(),
        }
    }

    /// What happened so far, and what is held.
    #[must_use]
    pub const fn counts(&self) -> StoreCounts {
        self.counts
    }

    /// The newest entry for this key that answers this request.
    pub fn find(&mut self, key: &[u8], request: Fields<'_>) -> Found {
        let Some(slot) = self.slots.get_mut(key) else { return Found::Nothing };
        let found = slot.variants.iter().rev().find(|entry| entry.selection.fits(request)).cloned();
        let Some(entry) = found else { return Found::Other };
        self.clock += 1;
        if let Some(key) = self.order.remove(&slot.used) {
            slot.used = self.clock;
            self.order.insert(self.clock, key);
        }
        Found::Entry(entry)
    }

    /// Stores an entry in the place of those that answer the same request. One that is
    /// larger than the whole budget is not stored.
    pub fn insert(&mut self, key: &Rc<[u8]>, entry: Entry, request: Fields<'_>) -> bool {
        let bytes = entry.bytes();
        if self.max_bytes < bytes + key.len() + KEY_OVERHEAD {
            self.remove_fitting(key, request);
            return false;
        }
        self.remove_fitting(key, request);
        self.clock += 1;
        let fresh = || Slot { variants: Vec::new(), used: 0, bytes: key.len() + KEY_OVERHEAD };
        let slot = match self.slots.entry(key.clone()) {
            alloc::collections::btree_map::Entry::Occupied(slot) => {
                self.order.remove(&slot.get().used);
                slot.into_mut()
            }
            alloc::collections::btree_map::Entry::Vacant(slot) => {
                self.counts.bytes += key.len() + KEY_OVERHEAD;
                slot.insert(fresh())
            }
        };
        if slot.variants.len() == MAX_VARIANTS {
            let old = slot.variants.remove(0);
            slot.bytes -= old.bytes();
            self.counts.bytes -= old.bytes();
            self.counts.entries -= 1;
            self.counts.evicted += 1;
        }
        slot.variants.push(Rc::new(entry));
        slot.bytes += bytes;
        slot.used = self.clock;
        self.order.insert(self.clock, key.clone());
        self.counts.bytes += bytes;
        self.counts.entries += 1;
        self.counts.stored += 1;
        while self.max_bytes < self.counts.bytes
            && let Some((_, key)) = self.order.pop_first()
        {
            let gone = self.take(&key);
            self.counts.evicted += gone;
        }
        true
    }

    /// Removes the entries that answer this request.
    pub fn remove_fitting(&mut self, key: &[u8], request: Fields<'_>) {
        self.keep(key, |entry| !entry.selection.fits(request));
    }

    /// Removes all entries of a key. Gives how many there were.
    pub fn invalidate(&mut self, key: &[u8]) -> u64 {
        let gone = self.remove(key);
        self.counts.invalidated += gone;
        gone
    }

    /// Removes all entries whose key begins with `prefix` and that are in `group`, or
    /// all if there is none. O(n) in the keys that begin so.
    pub fn invalidate_within(&mut self, prefix: &[u8], group: Option<&str>) -> u64 {
        let keys: Vec<_> = self
            .slots
            .range::<[u8], _>((core::ops::Bound::Included(prefix), core::ops::Bound::Unbounded))
            .map(|(key, _)| key.clone())
            .take_while(|key| key.starts_with(prefix))
            .collect();
        let before = self.counts.entries;
        for key in keys {
            match group {
                None => {
                    self.remove(&key);
                }
                Some(group) => self
                    .keep(&key, |entry| !entry.groups.iter().any(|other: &String| other == group)),
            }
        }
        let gone = (before - self.counts.entries) as u64;
        self.counts.invalidated += gone;
        gone
    }

    /// Makes all entries of a key stale.
    pub fn expire(&mut self, key: &[u8], now: Instant) {
        if let Some(slot) = self.slots.get_mut(key) {
            for entry in &mut slot.variants {
                Rc::make_mut(entry).expire(now);
            }
        }
    }

    fn keep(&mut self, key: &[u8], stays: impl Fn(&Entry) -> bool) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let (mut gone, mut count) = (0, 0);
        slot.variants.retain(|entry| {
            let stays = stays(entry);
            if !stays {
                gone += entry.bytes();
                count += 1;
            }
            stays
        });
        slot.bytes -= gone;
        self.counts.bytes -= gone;
        self.counts.entries -= count;
        if slot.variants.is_empty() {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: &[u8]) -> u64 {
        if let Some(slot) = self.slots.get(key) {
            self.order.remove(&slot.used);
        }
        self.take(key)
    }

    /// Removes a key that is not in the order any more.
    fn take(&mut self, key: &[u8]) -> u64 {
        let Some(slot) = self.slots.remove(key) else { return 0 };
        self.counts.bytes -= slot.bytes;
        self.counts.entries -= slot.variants.len();
        slot.variants.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::policy::{Policy, judge};
    use crate::cache::vary::Selection;
    use crate::time::UnixTime;
    use proptest::prelude::*;

    fn entry(size: usize, vary: &str, request: Fields<'_>, group: &str) -> Entry {
        let group = std::format!("\"{group}\"");
        let pairs: [(&[u8], &[u8]); 3] = [
            (b"cache-control", b"max-age=60"),
            (b"vary", vary.as_bytes()),
            (b"cache-groups", group.as_bytes()),
        ];
        let response = Fields::new(&pairs);
        let terms =
            judge(&Policy::default(), request, 200, response, UnixTime::from_secs(9)).unwrap();
        let selection = Selection::of(response, request).unwrap();
        Entry::new(200, response, std::vec![0; size].into(), &terms, selection, Instant::ZERO)
    }

    fn key(name: &str) -> Rc<[u8]> {
        name.as_bytes().into()
    }

    #[test]
    fn the_least_recently_used_goes_first_and_the_budget_holds() {
        let none = Fields::default();
        let mut store = Store::new(4000);
        for name in ["a", "b", "c"] {
            assert!(store.insert(&key(name), entry(1000, "", none, "g"), none));
        }
        assert!(store.counts().bytes <= 4000, "{:?}", store.counts());
        assert!(matches!(store.find(b"a", none), Found::Nothing | Found::Entry(_)));
        store.find(b"b", none);
        store.insert(&key("d"), entry(1000, "", none, "g"), none);
        assert!(matches!(store.find(b"b", none), Found::Entry(_)));
        assert!(!store.insert(&key("e"), entry(5000, "", none, "g"), none));
    }

    #[test]
    fn variants_are_kept_side_by_side_and_bounded() {
        let mut store = Store::new(1 << 20);
        for n in 0..40 {
            let value = std::format!("{n}");
            let pairs = [(&b"x"[..], value.as_bytes())];
            let request = Fields::new(&pairs);
            store.insert(&key("a"), entry(10, "x", request, "g"), request);
        }
        assert_eq!(store.counts().entries, MAX_VARIANTS);
        let last = [(&b"x"[..], &b"39"[..])];
        assert!(matches!(store.find(b"a", Fields::new(&last)), Found::Entry(_)));
        assert!(matches!(store.find(b"a", Fields::default()), Found::Other));
    }

    #[test]
    fn groups_and_prefixes_are_made_invalid() {
        let none = Fields::default();
        let mut store = Store::new(1 << 20);
        for (name, group) in [("o1/a", "g"), ("o1/b", "h"), ("o2/c", "g")] {
            store.insert(&key(name), entry(10, "", none, group), none);
        }
        assert_eq!(store.invalidate_within(b"o1", Some("g")), 1);
        assert!(matches!(store.find(b"o2/c", none), Found::Entry(_)));
        assert_eq!(store.invalidate_within(b"", None), 2);
        assert_eq!((store.counts().bytes, store.counts().entries), (0, 0));
    }

    proptest! {
        #[test]
        fn the_books_are_right_whatever_happens(steps in prop::collection::vec((0_u8..6, 0_u8..8, 0_usize..900), 0..120)) {
            let mut store = Store::new(5000);
            for (what, name, size) in steps {
                let (name, none) = (std::format!("k{name}"), Fields::default());
                let pairs = [(&b"x"[..], if size % 2 == 0 { &b"1"[..] } else { &b"2"[..] })];
                let request = Fields::new(&pairs);
                match what {
                    0..=2 => { store.insert(&key(&name), entry(size, "x", request, "g"), request); }
                    3 => { store.invalidate(name.as_bytes()); }
                    4 => store.remove_fitting(name.as_bytes(), request),
                    _ => { store.find(name.as_bytes(), none); }
                }
                let counts = store.counts();
                prop_assert!(counts.bytes <= 5000);
                let bytes: usize = store.slots.iter().map(|(key, slot)| {
                    key.len() + KEY_OVERHEAD + slot.variants.iter().map(|e| e.bytes()).sum::<usize>()
                }).sum();
                prop_assert_eq!(counts.bytes, bytes);
                prop_assert_eq!(store.order.len(), store.slots.len());
                prop_assert!(store.slots.values().all(|slot| !slot.variants.is_empty()));
            }
        }
    }
}
