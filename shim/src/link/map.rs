//! Entries of the dynamic linker's list of libraries.

use super::object::Object;

/// An entry of the dynamic linker's list of libraries: the part of it that is fixed for
/// debuggers (`struct link_map`).
#[repr(C)]
pub(crate) struct LinkMap {
    base: usize,
    name: *const u8,
    dynamic: usize,
    pub(crate) next: *const LinkMap,
    previous: *const LinkMap,
}

impl LinkMap {
    /// The entries from `at` on.
    ///
    /// # Safety
    /// `at` is null or an entry of the list, which does not change meanwhile.
    pub(crate) unsafe fn all(at: *const LinkMap) -> impl Iterator<Item = *const LinkMap> {
        let mut at = at;
        std::iter::from_fn(move || {
            let this = at;
            // SAFETY: by the caller.
            at = unsafe { this.as_ref() }?.next;
            Some(this)
        })
    }

    /// The entry of the library whose dynamic section is at `dynamic`.
    ///
    /// # Safety
    /// As [`LinkMap::all`].
    pub(crate) unsafe fn find(at: *const LinkMap, dynamic: usize) -> Option<*const LinkMap> {
        // SAFETY: by the caller.
        unsafe { LinkMap::all(at).find(|map| (**map).dynamic == dynamic) }
    }

    /// The symbols of the library.
    ///
    /// # Safety
    /// As [`LinkMap::all`]; it stays loaded as long as the value is used.
    pub(crate) unsafe fn object(&self) -> Option<Object> {
        // SAFETY: by the caller.
        unsafe { Object::of_dynamic(self.base, self.dynamic) }
    }

    /// The address of the first function or variable of that name from `at` on, except in
    /// the library whose dynamic section is at `except`.
    ///
    /// # Safety
    /// As [`LinkMap::all`]; the libraries are relocated.
    pub(crate) unsafe fn lookup(at: *const LinkMap, name: &[u8], except: usize) -> Option<usize> {
        // SAFETY: by the caller.
        unsafe {
            LinkMap::all(at)
                .filter(|map| (**map).dynamic != except)
                .filter_map(|map| (*map).object())
                .find_map(|object| object.find(name))
        }
    }
}
