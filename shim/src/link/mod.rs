//! Looks at loaded libraries without the dynamic linker, and binds this one.
//!
//! | file | what it does |
//! |---|---|
//! | `object` | symbols of a loaded library |
//! | `map` | entries of the dynamic linker's list |
//! | `linker` | finds that list |
//! | `relocate` | relocates this library before the dynamic linker does |
//! | `bind` | has this library call the C library itself |

pub(crate) mod bind;
pub(crate) mod linker;
pub(crate) mod map;
pub(crate) mod object;
pub(crate) mod relocate;
