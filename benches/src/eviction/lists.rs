//! Lists of pages; a page is on one of them at most.

/// No page.
const NONE: u32 = u32::MAX;
/// On no list.
const NOWHERE: u8 = u8::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    older: u32,
    newer: u32,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    oldest: u32,
    newest: u32,
    len: usize,
}

/// Some lists, each in the order in which pages came to it.
#[derive(Clone, Debug)]
pub struct Lists {
    links: Vec<Link>,
    on: Vec<u8>,
    ends: Vec<Ends>,
}

impl Lists {
    /// Makes `lists` empty lists of pages below `limit`.
    pub fn new(lists: u8, limit: u32) -> Lists {
        let (oldest, newest, len) = (NONE, NONE, 0);
        let unlinked = Link {
            older: NONE,
            newer: NONE,
        };
        Lists {
            links: vec![unlinked; limit as usize],
            on: vec![NOWHERE; limit as usize],
            ends: vec![
                Ends {
                    oldest,
                    newest,
                    len
                };
                lists.into()
            ],
        }
    }

    /// Which list a page is on.
    pub fn list_of(&self, page: u32) -> Option<u8> {
        let on = self.on[page as usize];
        (on != NOWHERE).then_some(on)
    }

    /// Pages on a list.
    pub fn len(&self, list: u8) -> usize {
        self.ends[usize::from(list)].len
    }

    /// The page that has been on a list longest.
    pub fn oldest(&self, list: u8) -> Option<u32> {
        let page = self.ends[usize::from(list)].oldest;
        (page != NONE).then_some(page)
    }

    /// The page that came to a list last.
    pub fn newest(&self, list: u8) -> Option<u32> {
        let page = self.ends[usize::from(list)].newest;
        (page != NONE).then_some(page)
    }

    /// The page that came to its list after this one.
    pub fn newer(&self, page: u32) -> Option<u32> {
        let newer = self.links[page as usize].newer;
        (newer != NONE).then_some(newer)
    }

    /// Puts a page on a list as its newest, from wherever it is.
    pub fn push(&mut self, list: u8, page: u32) {
        self.remove(page);
        let ends = &mut self.ends[usize::from(list)];
        let older = std::mem::replace(&mut ends.newest, page);
        ends.len += 1;
        match older {
            NONE => ends.oldest = page,
            older => self.links[older as usize].newer = page,
        }
        self.links[page as usize] = Link { older, newer: NONE };
        self.on[page as usize] = list;
    }

    /// Takes a page off its list.
    pub fn remove(&mut self, page: u32) {
        let Some(list) = self.list_of(page) else {
            return;
        };
        let Link { older, newer } = self.links[page as usize];
        let ends = &mut self.ends[usize::from(list)];
        ends.len -= 1;
        match older {
            NONE => ends.oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
        match newer {
            NONE => ends.newest = older,
            newer => self.links[newer as usize].older = older,
        }
        self.on[page as usize] = NOWHERE;
    }

    /// Takes off the page that has been on a list longest.
    pub fn pop(&mut self, list: u8) -> Option<u32> {
        let page = self.oldest(list)?;
        self.remove(page);
        Some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_leave_in_order_and_are_on_one_list_only() {
        let mut lists = Lists::new(2, 10);
        [3, 1, 4, 5].into_iter().for_each(|p| lists.push(0, p));
        lists.push(1, 4);
        lists.push(0, 3);
        assert_eq!((lists.len(0), lists.len(1)), (3, 1));
        assert_eq!((lists.list_of(4), lists.list_of(9)), (Some(1), None));
        assert_eq!((lists.newer(1), lists.newest(0)), (Some(5), Some(3)));
        lists.remove(5);
        assert_eq!(
            [0, 0, 0].map(|list| lists.pop(list)),
            [Some(1), Some(3), None]
        );
        assert_eq!((lists.pop(1), lists.pop(1)), (Some(4), None));
    }
}
