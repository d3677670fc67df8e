//! Traces of programs that do one thing only.

use super::trace::Trace;
use crate::Error;
use crate::memory::mix;
use crate::zipf::Zipf;

/// A trace by its name: `cyclic:PAGES:USES` goes through all pages in order, over
/// and over; `zipf:PAGES:USES` uses few of them most of the time, anywhere;
/// `mixed:PAGES:USES` uses by turns one page in order and one of few.
///
/// # Errors
/// There is none of that name.
pub fn named(name: &str) -> Result<Trace, Error> {
    let wrong = Error::Trace("is neither a file nor KIND:PAGES:USES of a known kind");
    let parts: Vec<&str> = name.split(':').collect();
    let number = |at: usize| parts.get(at).and_then(|n: &&str| n.parse::<u64>().ok());
    let (Some(pages @ 1..), Some(uses)) = (number(1), number(2)) else {
        return Err(wrong);
    };
    let law = |pages: u64| {
        let (zipf, mut state) = (Zipf::new(pages.max(1) as usize, 0.99), 0);
        move || {
            let rank = zipf.rank(|| {
                state += 1;
                mix(state)
            });
            // Where a page lies says nothing of how often it is used.
            mix(rank as u64) % pages.max(1)
        }
    };
    let used: Vec<u64> = match parts[0] {
        "cyclic" => (0..uses).map(|n| n % pages).collect(),
        "zipf" => {
            let mut page = law(pages);
            (0..uses).map(|_| page()).collect()
        }
        "mixed" => {
            let few = pages / 4;
            let mut page = law(few);
            let scan = |n: u64| few + n / 2 % (pages - few);
            (0..uses)
                .map(|n| if n % 2 == 0 { scan(n) } else { page() })
                .collect()
        }
        _ => return Err(wrong),
    };
    Ok(Trace::new(&used))
}
