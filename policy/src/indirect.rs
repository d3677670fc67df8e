//! What to fetch for a thread that follows pointers: an [`Array`](PointerArray) of pointers
//! that it goes through, found from a page that it read ([`PointerPages`]).

mod array;
mod pointer_page;

pub use array::{PointerArray, WORD};
pub use pointer_page::PointerPages;
