//! Which parts of a shared array are free: first fit, neighbours merged.

use std::collections::BTreeMap;

/// Free ranges of an array.
#[derive(Debug, Default)]
pub struct Extents {
    /// Length by start.
    free: BTreeMap<u32, u32>,
}

impl Extents {
    /// All of `start..end` is free.
    pub fn new(start: u32, end: u32) -> Self {
        Self { free: BTreeMap::from([(start, end.saturating_sub(start))]) }
    }

    /// Takes `len` elements; where they start. Zero elements start anywhere.
    pub fn take(&mut self, len: u32) -> Option<u32> {
        if len == 0 {
            return Some(0);
        }
        let (&start, &size) = self.free.iter().find(|(_, size)| **size >= len)?;
        self.free.remove(&start);
        if size > len {
            self.free.insert(start + len, size - len);
        }
        Some(start)
    }

    /// Takes the range that starts at `start`, which must be free as a whole.
    pub fn reserve(&mut self, start: u32, len: u32) -> bool {
        if len == 0 {
            return true;
        }
        let Some((&from, &size)) = self.free.range(..=start).next_back() else { return false };
        if start + len > from + size {
            return false;
        }
        self.free.remove(&from);
        if start > from {
            self.free.insert(from, start - from);
        }
        if start + len < from + size {
            self.free.insert(start + len, from + size - start - len);
        }
        true
    }

    /// Gives a range back.
    pub fn give(&mut self, start: u32, len: u32) {
        if len == 0 {
            return;
        }
        let (mut start, mut len) = (start, len);
        if let Some((&before, &size)) = self.free.range(..start).next_back()
            && before + size == start
        {
            self.free.remove(&before);
            (start, len) = (before, len + size);
        }
        if let Some(size) = self.free.remove(&(start + len)) {
            len += size;
        }
        self.free.insert(start, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_as_a_whole() {
        let mut extents = Extents::new(1, 101);
        let parts: Vec<u32> = (0..10).map(|_| extents.take(10).expect("room")).collect();
        assert_eq!(extents.take(1), None);
        for part in parts.iter().step_by(2).chain(parts.iter().skip(1).step_by(2)) {
            extents.give(*part, 10);
        }
        assert_eq!(extents.take(100), Some(1));
    }

    #[test]
    fn a_reserved_range_is_not_handed_out() {
        let mut extents = Extents::new(0, 30);
        assert!(extents.reserve(10, 10));
        assert!(!extents.reserve(15, 10));
        assert_eq!(
            (extents.take(10), extents.take(10), extents.take(1)),
            (Some(0), Some(20), None)
        );
    }
}
