//! The pager that anyone would write first, on the `userfaultfd` crate: one thread, one page
//! at a time, first in first out, a page server that is asked and waited for.
//!
//! It is no more than a baseline. Memory may change while one of its pages is evicted only
//! because there is one thread that uses it, and that thread waits in a fault meanwhile.

use std::collections::{HashMap, VecDeque};
use std::ffi::c_void;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::thread::JoinHandle;
use userfaultfd::{Event, RegisterMode, Uffd, UffdBuilder};

/// Bytes of a page.
const PAGE: usize = 4096;

/// A page server on a connection: answers `r` and a number with a page, keeps a page after `w`
/// and a number. Ends when the connection does.
fn serve(mut stream: TcpStream) {
    let mut pages: HashMap<[u8; 8], [u8; PAGE]> = HashMap::new();
    let (mut request, mut page) = ([0; 9], [0; PAGE]);
    while stream.read_exact(&mut request).is_ok() {
        let number = *request[1..].first_chunk().expect("a request has a number");
        let done = match request[0] {
            b'w' => stream.read_exact(&mut page).map(|()| {
                pages.insert(number, page);
            }),
            _ => stream.write_all(pages.get(&number).unwrap_or(&[0; PAGE])),
        };
        if done.is_err() {
            return;
        }
    }
}

/// Memory that is paged.
pub(crate) struct PlainPager {
    pager: Option<JoinHandle<io::Result<()>>>,
    server: Option<JoinHandle<()>>,
    stop: TcpStream,
}

/// What the pager's thread has.
struct Pager {
    uffd: Uffd,
    server: TcpStream,
    /// Resident pages, the oldest first, and the most of them.
    resident: VecDeque<usize>,
    limit: usize,
}

impl PlainPager {
    /// Pages the whole pages of `memory`, of which all are resident now, so that `limit` are.
    ///
    /// # Errors
    /// The user may have no userfaultfd, or there is no socket.
    ///
    /// # Safety
    /// The memory is anonymous and private, one thread uses it, and it is unmapped before the
    /// pager is dropped: afterwards its absent pages would read as zeros.
    pub(crate) unsafe fn start(memory: Range<usize>, limit: usize) -> io::Result<PlainPager> {
        let whole = memory.start.next_multiple_of(PAGE)..memory.end / PAGE * PAGE;
        let uffd = UffdBuilder::new()
            .close_on_exec(true)
            .user_mode_only(true)
            .create();
        let uffd = uffd.map_err(io::Error::other)?;
        let (start, len) = (whole.start as *mut c_void, whole.len());
        uffd.register_with_mode(start, len, RegisterMode::MISSING)
            .map_err(io::Error::other)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server = TcpStream::connect(listener.local_addr()?)?;
        let (client, _) = listener.accept()?;
        [&server, &client]
            .iter()
            .try_for_each(|s| s.set_nodelay(true))?;
        let stop = server.try_clone()?;
        let served = std::thread::spawn(move || serve(client));
        let mut pager = Pager {
            uffd,
            server,
            resident: whole.step_by(PAGE).collect(),
            limit,
        };
        while pager.resident.len() > limit {
            pager.evict()?;
        }
        Ok(PlainPager {
            pager: Some(std::thread::spawn(move || pager.run())),
            server: Some(served),
            stop,
        })
    }
}

impl Drop for PlainPager {
    fn drop(&mut self) {
        // The connection is shared: the server and the pager both see its end.
        let _ = self.stop.shutdown(std::net::Shutdown::Both);
        let _ = self.server.take().map(JoinHandle::join);
        let _ = self.pager.take().map(JoinHandle::join);
    }
}

impl Pager {
    fn run(&mut self) -> io::Result<()> {
        loop {
            if !self.waits_for_fault()? {
                return Ok(());
            }
            let event = self.uffd.read_event().map_err(io::Error::other)?;
            if let Some(Event::Pagefault { addr, .. }) = event {
                self.fault(addr as usize / PAGE * PAGE)?;
            }
        }
    }

    /// Waits for a fault; not if the connection ends before.
    fn waits_for_fault(&self) -> io::Result<bool> {
        let poll = |fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        let mut fds = [poll(self.uffd.as_raw_fd()), poll(self.server.as_raw_fd())];
        // SAFETY: two descriptors that are open, and room for what is said of them.
        match unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(fds[1].revents == 0),
        }
    }

    fn fault(&mut self, page: usize) -> io::Result<()> {
        if self.resident.len() >= self.limit {
            self.evict()?;
        }
        let mut bytes = [0; PAGE];
        self.ask(b'r', page)?;
        self.server.read_exact(&mut bytes)?;
        // SAFETY: a page of the memory that is registered, and one that is read from.
        let copied = unsafe {
            let (from, to) = (bytes.as_ptr().cast(), page as *mut c_void);
            self.uffd.copy(from, to, PAGE, true)
        };
        copied.map_err(io::Error::other)?;
        self.resident.push_back(page);
        Ok(())
    }

    fn evict(&mut self) -> io::Result<()> {
        let Some(page) = self.resident.pop_front() else {
            return Ok(());
        };
        // SAFETY: a resident page of the memory; the thread that uses it waits.
        let bytes = unsafe { std::slice::from_raw_parts(page as *const u8, PAGE) };
        self.ask(b'w', page)?;
        self.server.write_all(bytes)?;
        // SAFETY: the page is on the server, and is put back when it is touched.
        match unsafe { libc::madvise(page as *mut c_void, PAGE, libc::MADV_DONTNEED) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn ask(&mut self, op: u8, page: usize) -> io::Result<()> {
        let mut request = [op; 9];
        request[1..].copy_from_slice(&(page as u64).to_le_bytes());
        self.server.write_all(&request)
    }
}
