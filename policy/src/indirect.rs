//! What to fetch for a thread that follows pointers: an [`Array`](Trail) of pointers
//! that it goes through, found from a page that it read ([`Leads`]).

mod array;
mod pointer_page;

pub use array::{Trail, WORD};
pub use pointer_page::Leads;
