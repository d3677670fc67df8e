//! How a slab gives keys to its memory, and takes them back.

use super::keys::Region;
use super::slab::Slab;
use tmem_wire::{SlabKey, Status};

impl Slab {
    /// The connection's key to this slab: the one it has, or what `register`
    /// makes of the slab's memory and length. For writing, the caller keeps
    /// the slab from being shared meanwhile.
    pub(crate) fn key(
        &self,
        connection: u64,
        write: bool,
        register: impl FnOnce(*mut u8, usize) -> Result<(u32, Region), Status>,
    ) -> Result<SlabKey, Status> {
        let mut inner = self.keys().lock();
        if let Some(answer) = inner.find(connection, write)? {
            return Ok(answer);
        }
        // Before the device has it: nothing is given back from here on.
        let pin = self.pin(write)?;
        // The device has each page populated.
        drop(self.begin_write(0, self.pages())?);
        let base = self.page(0);
        let (key, region) = register(base, self.len())?;
        if write {
            // Nobody will say which pages are.
            self.all_written();
        }
        let answer = SlabKey {
            address: base as u64,
            key,
            write,
        };
        inner.add(connection, answer, region, pin);
        Ok(answer)
    }

    /// Ends the keys for writing.
    pub(crate) fn end_write_keys(&self) {
        self.keys().lock().end_for_writing();
    }

    /// Ends the keys of a connection.
    pub(crate) fn end_keys_of(&self, connection: u64) {
        self.keys().lock().end_of(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::pool::Pool;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    const PAGES: u32 = 8;

    /// Hands out regions that count themselves.
    #[derive(Default)]
    struct Device {
        next: AtomicU32,
        regions: Arc<AtomicU32>,
    }

    struct Counted(Arc<AtomicU32>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    impl Device {
        fn key(&self, slab: &Slab, connection: u64, write: bool) -> Result<SlabKey, Status> {
            slab.key(connection, write, |_, len| {
                assert_eq!(len, PAGES as usize * 4096);
                self.regions.fetch_add(1, Ordering::Relaxed);
                let key = self.next.fetch_add(1, Ordering::Relaxed);
                Ok((key, Box::new(Counted(self.regions.clone())) as Region))
            })
        }

        fn regions(&self) -> u32 {
            self.regions.load(Ordering::Relaxed)
        }
    }

    fn pool() -> Arc<Pool> {
        Pool::new(1, PAGES, None).unwrap()
    }

    /// What a device, or a WRITE, does.
    fn put(slab: &Slab, page: u32, value: u8) {
        // SAFETY: a byte of the slab's memory.
        unsafe { slab.page(page).write_volatile(value) };
    }

    fn get(slab: &Slab, page: u32) -> u8 {
        // SAFETY: a byte of the slab's memory.
        unsafe { slab.page(page).read_volatile() }
    }

    fn is_resident(slab: &Slab, page: u32) -> bool {
        let mut there = 0u8;
        // SAFETY: one page of the slab, and room for one answer.
        let asked = unsafe { libc::mincore(slab.page(page).cast(), 4096, &raw mut there) };
        assert_eq!(asked, 0);
        there & 1 != 0
    }

    #[test]
    fn the_same_key_is_given_again_and_each_connection_and_access_has_its_own() {
        let (pool, device) = (pool(), Device::default());
        let slab = Slab::of(&pool, &Arc::default()).unwrap();
        let first = device.key(&slab, 1, false).unwrap();
        assert_eq!(first.address, slab.page(0) as u64);
        assert_eq!(device.key(&slab, 1, false), Ok(first));
        let write = device.key(&slab, 1, true).unwrap();
        let other = device.key(&slab, 2, false).unwrap();
        assert!(write.key != first.key && other.key != first.key && write.write);
        assert_eq!(device.regions(), 3);
        slab.end_keys_of(1);
        assert_eq!(device.regions(), 1);
        assert_ne!(device.key(&slab, 1, false), Ok(first));
    }

    #[test]
    fn what_could_not_be_registered_leaves_no_pin() {
        let pool = pool();
        let slab = Slab::of(&pool, &Arc::default()).unwrap();
        slab.written(0, 1);
        put(&slab, 0, 1);
        assert_eq!(
            slab.key(1, true, |_, _| Err(Status::Full)),
            Err(Status::Full)
        );
        assert_eq!(pool.stored_pages(), 1);
        slab.discard(0, 1);
        assert!(!is_resident(&slab, 0) && pool.stored_pages() == 0);
    }

    #[test]
    fn nothing_is_given_back_while_there_is_a_key_but_reads_as_zeros() {
        for write in [false, true] {
            let (pool, device) = (pool(), Device::default());
            let slab = Slab::of(&pool, &Arc::default()).unwrap();
            device.key(&slab, 1, write).unwrap();
            put(&slab, 3, 9);
            slab.written(3, 4);
            slab.discard(0, PAGES);
            assert!(is_resident(&slab, 3), "the page that the device has");
            assert_eq!(get(&slab, 3), 0);
            // What comes by the device after a DISCARD is held too.
            put(&slab, 3, 7);
            let held = slab.runs(3, 4).next().unwrap();
            assert_eq!(held.set, write);
            slab.end_keys_of(1);
            slab.discard(3, 4);
            assert!(!is_resident(&slab, 3));
            assert_eq!(get(&slab, 3), 0);
        }
    }

    #[test]
    fn a_slab_with_a_key_for_writing_counts_as_written_for_its_children_too() {
        let (pool, device) = (pool(), Device::default());
        let slab = Slab::of(&pool, &Arc::default()).unwrap();
        slab.written(1, 2);
        device.key(&slab, 1, true).unwrap();
        assert_eq!(pool.stored_pages(), PAGES.into());
        slab.end_write_keys();
        let child = slab.share().unwrap();
        drop(slab);
        assert!(child.runs(0, PAGES).all(|run| run.set));
        drop(child);
        assert_eq!(pool.stored_pages(), 0);
    }

    #[test]
    fn what_one_owner_discards_the_others_key_still_reads() {
        let (pool, device) = (pool(), Device::default());
        let slab = Slab::of(&pool, &Arc::default()).unwrap();
        slab.written(0, 2);
        put(&slab, 0, 5);
        let child = slab.share().unwrap();
        device.key(&child, 2, false).unwrap();
        slab.discard(0, 1);
        assert_eq!(get(&child, 0), 5);
        drop(slab);
        assert_eq!(get(&child, 0), 5);
        child.discard(0, 1);
        assert_eq!(get(&child, 0), 0);
        assert!(is_resident(&child, 0));
    }

    #[test]
    fn keys_for_writing_are_for_slabs_of_one_session_only() {
        let (pool, device) = (pool(), Device::default());
        let slab = Slab::of(&pool, &Arc::default()).unwrap();
        device.key(&slab, 1, false).unwrap();
        device.key(&slab, 1, true).unwrap();
        slab.end_write_keys();
        assert_eq!(device.regions(), 1);
        let child = slab.share().unwrap();
        assert_eq!(device.key(&slab, 1, true), Err(Status::Shared));
        assert_eq!(device.key(&child, 2, true), Err(Status::Shared));
        device.key(&child, 2, false).unwrap();
        drop(child);
        assert_eq!(device.regions(), 1);
        assert!(device.key(&slab, 1, true).unwrap().write);
    }

    #[test]
    fn a_released_slab_has_no_keys_whoever_still_holds_it() {
        let (pool, device) = (pool(), Device::default());
        let slab = Slab::of(&pool, &Arc::default()).unwrap();
        device.key(&slab, 1, true).unwrap();
        slab.keys().end();
        assert_eq!(device.regions(), 0);
        assert_eq!(device.key(&slab, 1, true), Err(Status::NoSuchSlab));
        // A slab that is dropped with its keys ends them before it goes.
        drop(slab);
        let slab = Slab::of(&pool, &Arc::default()).unwrap();
        let regions = device.regions.clone();
        device.key(&slab, 1, false).unwrap();
        drop(slab);
        assert_eq!(regions.load(Ordering::Relaxed), 0);
        assert_eq!(get(&Slab::of(&pool, &Arc::default()).unwrap(), 0), 0);
    }
}
