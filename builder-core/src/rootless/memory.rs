//! Memory, of which builds side by side have one: what this process can spare, and whether the kernel killed something for
//! lack of it (the `oom_kill` counter of this process' cgroup).
//!
//! A count before and after, because the kernel tells a killed process' parent only "SIGKILL". Absent where there is no
//! memory controller; then nothing is claimed.

use std::fs;

use crate::sys::memory;

/// Lets this process hold little memory while it waits for a build, to be told of every event: a moment after work the
/// pages of its program and libraries go back to the kernel, and come again from their files when they are used. Ends when
/// dropped. Breakpoints that a debugger has set in this process are lost.
#[derive(Debug)]
pub struct Rest(memory::Rest);

impl Rest {
    /// Gives back what is free now, and begins.
    pub fn start() -> Self {
        memory::release();
        Self(memory::Rest::start())
    }

    /// There was work.
    pub fn soon(&self) {
        self.0.soon();
    }
}

/// Processes of this process' memory cgroup that the kernel killed so far.
pub(super) fn oom_kills() -> Option<u64> {
    let cgroup = fs::read_to_string("/proc/self/cgroup").ok()?;
    counter_files(&cgroup).iter().find_map(|path| counter(&fs::read_to_string(path).ok()?))
}

/// Where the counter may be, the unified hierarchy first. A container often shows its own cgroup as the root of the
/// mount while `/proc/self/cgroup` has the host's path, so the root is tried too.
fn counter_files(cgroup: &str) -> Vec<String> {
    let path_of = |controller: &str| {
        cgroup.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let is_it = fields.next()?.split(',').any(|name| name == controller);
            is_it.then(|| fields.next()).flatten()
        })
    };
    let mut files = Vec::new();
    for (controller, mount, file) in
        [("", "/sys/fs/cgroup", "memory.events"), ("memory", "/sys/fs/cgroup/memory", "memory.oom_control")]
    {
        if let Some(path) = path_of(controller) {
            files.push(format!("{mount}{}/{file}", path.trim_end_matches('/')));
            files.push(format!("{mount}/{file}"));
        }
    }
    files
}

fn counter(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_looked_for_in_both_hierarchies() {
        assert_eq!(
            counter_files("0::/user.slice/a\n"),
            ["/sys/fs/cgroup/user.slice/a/memory.events", "/sys/fs/cgroup/memory.events"]
        );
        assert_eq!(
            counter_files("5:cpu,memory:/x\n4:pids:/\n"),
            ["/sys/fs/cgroup/memory/x/memory.oom_control", "/sys/fs/cgroup/memory/memory.oom_control"]
        );
        assert_eq!(counter_files("0::/\n")[0], "/sys/fs/cgroup/memory.events");
        assert_eq!(counter_files(""), Vec::<String>::new());
    }

    #[test]
    fn the_counter_is_told_from_its_neighbours() {
        assert_eq!(counter("low 0\noom 3\noom_kill 2\noom_group_kill 1\n"), Some(2));
        assert_eq!(counter("oom_kill_disable 0\nunder_oom 0\n"), None);
    }
}
