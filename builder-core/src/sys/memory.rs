//! Memory that a process holds and does not need: what its allocator keeps of what was freed, and pages of its program that
//! were executed once.
//!
//! The build process holds the most between two commands, when it works out and writes a layer. While a command runs it
//! waits, and memory that it keeps for nothing is taken from the command. glibc keeps a lot by default: an arena a thread,
//! and blocks of up to 32 MiB once blocks of that size were freed (`mallopt(3)`, `M_MMAP_THRESHOLD`). Other C libraries give
//! back by themselves. The kernel keeps pages of a program until memory is short, 64 KiB around each that was touched.
#![allow(unsafe_code, reason = "the allocator is tuned through its own calls, and pages are named by address")]

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

/// Makes the allocator return memory early; for a process that is this library's alone.
pub(crate) fn return_early() {
    #[cfg(target_env = "gnu")]
    // SAFETY: both calls set a number of the allocator, whatever it has allocated before, and refuse what they do not
    // take.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}

/// Gives what is free, and the program's own pages, back to the kernel now. What is executed next comes back from the page
/// cache, page by page.
pub(crate) fn release() {
    trim();
    release_program();
}

/// Gives what is free back to the kernel now.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it looks at free memory only, under the locks of the allocator.
    unsafe {
        libc::malloc_trim(0);
    }
}

fn release_program() {
    // SAFETY: the callback has the type that is asked for, and needs no data.
    unsafe {
        libc::dl_iterate_phdr(Some(release_object), std::ptr::null_mut());
    }
}

/// Lets the program's pages go whenever it rests: for a process that works a little now and then for a command that runs.
/// Ends when dropped.
#[derive(Debug)]
pub(crate) struct Rest {
    /// Wakes who rests.
    work: Option<SyncSender<()>>,
    /// Whether nobody waits any more.
    ended: Arc<AtomicBool>,
}

impl Rest {
    /// How long work goes on before the pages are let go that it took.
    const PERIOD: Duration = Duration::from_millis(50);

    /// Begins with a rest. A process that cannot have another thread never rests.
    pub(crate) fn start() -> Self {
        let (sender, receiver) = sync_channel(1);
        let ended = Arc::new(AtomicBool::new(false));
        let has_ended = Arc::clone(&ended);
        let rest = move || {
            while receiver.recv().is_ok() {
                std::thread::sleep(Self::PERIOD);
                // What was short has cost nothing.
                if !has_ended.load(Ordering::Relaxed) {
                    release_program();
                }
            }
        };
        let started = std::thread::Builder::new().name("rest".to_owned()).stack_size(64 << 10).spawn(rest);
        let this = Self { work: started.is_ok().then_some(sender), ended };
        this.soon();
        this
    }

    /// There was work; after it is time for a rest.
    pub(crate) fn soon(&self) {
        if let Some(work) = &self.work {
            // Full: a rest is due already.
            work.try_send(()).ok();
        }
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Lets go of the pages of one loaded object that can only be read or executed. They are never written to, so the file has
/// what they hold; an object with relocations in them (`DT_TEXTREL`, elf(5)) is left alone, because there the file has not.
///
/// # Safety
/// For `dl_iterate_phdr(3)` only: `info` describes an object that stays loaded during the call.
unsafe extern "C" fn release_object(info: *mut libc::dl_phdr_info, _size: usize, _data: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    let info = unsafe { &*info };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: an object has that many program headers there.
    let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let address = |header: &libc::Elf64_Phdr| {
        usize::try_from(info.dlpi_addr.wrapping_add(header.p_vaddr))
            .map(std::ptr::with_exposed_provenance_mut::<c_void>)
    };
    // SAFETY: a dynamic section is loaded where its header says.
    let is_written =
        |header: &libc::Elf64_Phdr| address(header).is_ok_and(|at| unsafe { has_text_relocations(at.cast()) });
    if headers.iter().any(|header| header.p_type == libc::PT_DYNAMIC && is_written(header)) {
        return 0;
    }
    for header in headers {
        let is_constant = header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0;
        let (Ok(start), Ok(length)) = (address(header), usize::try_from(header.p_memsz)) else { continue };
        if is_constant {
            let into_page = start.addr() % rustix::param::page_size();
            // SAFETY: these are pages of a private mapping of a file that nothing was ever written to: the kernel maps the
            // same bytes again when they are needed. What is not such a mapping (the vDSO) it refuses, and nothing is lost.
            unsafe { libc::madvise(start.byte_sub(into_page), length + into_page, libc::MADV_DONTNEED) };
        }
    }
    0
}

/// Whether a dynamic section says that the dynamic linker wrote into the text.
///
/// # Safety
/// `entry` is the first entry of a dynamic section, which `DT_NULL` ends.
unsafe fn has_text_relocations(mut entry: *const [u64; 2]) -> bool {
    const DT_NULL: u64 = 0;
    const DT_TEXTREL: u64 = 22;
    const DT_FLAGS: u64 = 30;
    const DF_TEXTREL: u64 = 4;
    loop {
        // SAFETY: the section goes on until `DT_NULL`, which was not seen yet.
        match unsafe { entry.read() } {
            [DT_NULL, _] => return false,
            [DT_TEXTREL, _] => return true,
            [DT_FLAGS, flags] if flags & DF_TEXTREL != 0 => return true,
            // SAFETY: as above.
            _ => entry = unsafe { entry.add(1) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident memory of this process that belongs to files, in KiB.
    fn resident_of_files() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim_end_matches("kB").trim().parse().unwrap()
    }

    // In a process of its own, where no other test executes pages again.
    crate::sys::testing::in_namespaces! {
        fn a_program_runs_on_after_its_pages_went() {
            let before = resident_of_files();
            release();
            let after = resident_of_files();
            assert!(after < before, "{before} KiB before, {after} KiB after");
            let rest = Rest::start();
            rest.soon();
            assert_eq!("12 8".split(' ').map(|word| word.parse::<u8>().unwrap()).sum::<u8>(), 20);
        }
    }
}
