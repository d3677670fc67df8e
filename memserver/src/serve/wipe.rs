//! Memory that held pages of clients, and does not keep them.

/// Memory that is wiped when it is dropped.
#[derive(Debug)]
pub(crate) struct Wiped<T: AsMut<[u8]>>(pub(crate) T);

impl Wiped<Box<[u8]>> {
    /// So many zeros.
    pub(crate) fn new(len: usize) -> Wiped<Box<[u8]>> {
        Wiped(vec![0; len].into())
    }
}

impl<T: AsMut<[u8]>> Drop for Wiped<T> {
    fn drop(&mut self) {
        wipe(self.0.as_mut());
    }
}

/// Overwrites bytes, also where nobody reads them any more.
pub(crate) fn wipe(bytes: &mut [u8]) {
    // SAFETY: the memory is `bytes`, any value of which is one.
    unsafe { libc::explicit_bzero(bytes.as_mut_ptr().cast(), bytes.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_wiped_before() {
        struct Watched<'a>([u8; 8], &'a std::cell::Cell<[u8; 8]>);
        impl AsMut<[u8]> for Watched<'_> {
            fn as_mut(&mut self) -> &mut [u8] {
                &mut self.0
            }
        }
        impl Drop for Watched<'_> {
            fn drop(&mut self) {
                self.1.set(self.0);
            }
        }
        let last = std::cell::Cell::new([1; 8]);
        drop(Wiped(Watched([9; 8], &last)));
        assert_eq!(last.get(), [0; 8]);
    }
}
