//! Starts programs, waits for them with a limit, and ends all of them on the way out.
//!
//! Each program gets a process group of its own, so that ending it also ends what it
//! started (npm starts node, node starts workers). A Ctrl-C therefore does not reach
//! them by itself: the signal handler here ends every group first.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};

use crate::tree::Tree;

/// The process groups that are alive, each named by its first process; `None` once all
/// were ended for good.
static GROUPS: Mutex<Option<Vec<Pid>>> = Mutex::new(Some(Vec::new()));

/// How long a program may take to end itself before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a program is looked at while it is waited for.
const GLANCE: Duration = Duration::from_millis(20);

/// How often a long step says that it is still at work.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// A program in the background; dropping it ends it and everything it started.
pub(crate) struct Running {
    child: Child,
    group: Pid,
}

impl Running {
    /// Starts `command` without input.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).process_group(0);
        // Spawned under the lock, so that a signal either ends this one too or comes first.
        groups(|all| {
            let Some(all) = all else { bail!("interrupted") };
            let child = command
                .spawn()
                .with_context(|| format!("cannot start {}", command.get_program().display()))?;
            let group = Pid::from_child(&child);
            all.push(group);
            Ok(Self { child, group })
        })
    }

    /// The status of the program if it has ended.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The number of its first process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard output, if that was asked to be a pipe; once.
    pub(crate) fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits until it ends by itself, at most until `deadline`.
    fn wait(&mut self, deadline: Instant, mut meanwhile: impl FnMut()) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("took too long and was ended");
            }
            meanwhile();
            std::thread::sleep(GLANCE);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The group is signalled even when its first process is gone: others may remain.
        let _ = rustix::process::kill_process_group(self.group, Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && !matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
            std::thread::sleep(GLANCE);
        }
        let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
        let _ = self.child.wait();
        groups(|all| all.iter_mut().for_each(|all| all.retain(|group| *group != self.group)));
    }
}

fn groups<T>(act: impl FnOnce(&mut Option<Vec<Pid>>) -> T) -> T {
    act(&mut GROUPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Ends every group that still lives; from now on none can be started.
pub(crate) fn end_all() {
    let left = groups(Option::take).unwrap_or_default();
    for group in &left {
        let _ = rustix::process::kill_process_group(*group, Signal::TERM);
    }
    let deadline = Instant::now() + PATIENCE;
    for group in left {
        while Instant::now() < deadline && rustix::process::test_kill_process_group(group).is_ok() {
            std::thread::sleep(GLANCE);
        }
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// Makes Ctrl-C and a polite kill end every group before this tool ends.
pub(crate) fn end_all_on_signal() -> Result<()> {
    ctrlc::set_handler(|| {
        end_all();
        std::process::exit(130);
    })
    .context("cannot listen for signals")
}

/// Runs a step quietly: its output goes to a log, a line every ten seconds says that
/// it still works, and the log's end is shown if it fails.
pub(crate) fn quietly(tree: &Tree, what: &str, limit: Duration, run: &mut Command) -> Result<()> {
    let log = tree.notes(&format!("log/{}.log", what.replace([' ', '/'], "-")));
    crate::tree::write(&log, "")?;
    let file = File::options().append(true).open(&log)?;
    run.stdout(file.try_clone()?).stderr(file);
    let started = Instant::now();
    let mut said = started;
    let mut running = Running::start(run)?;
    let status = running
        .wait(started + limit, || {
            if said.elapsed() >= HEARTBEAT {
                said = Instant::now();
                say(&format!("  ... {what}: {} s, {}", started.elapsed().as_secs(), last(&log)));
            }
        })
        .with_context(|| format!("{what} (log: {})", tree.shown(&log)))?;
    if !status.success() {
        bail!("{what} failed ({status}); the end of {}:\n{}", tree.shown(&log), tail(&log, 40));
    }
    Ok(())
}

/// Runs a program for its standard output, as text without the last newline.
pub(crate) fn output(limit: Duration, run: &mut Command) -> Result<String> {
    let name = run.get_program().display().to_string();
    run.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(run)?;
    let read = |stream: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                let _ = stream.read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).trim_end().to_owned()
        })
    };
    let out = read(running.child.stdout.take().map(|stream| Box::new(stream) as _));
    let err = read(running.child.stderr.take().map(|stream| Box::new(stream) as _));
    let status = running.wait(Instant::now() + limit, || {}).context(name.clone())?;
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    if !status.success() {
        bail!("{name} failed ({status}): {err}");
    }
    Ok(out)
}

/// Runs a program whose output the reader wants to see, and hands each line on.
pub(crate) fn followed(
    limit: Duration,
    run: &mut Command,
    mut line: impl FnMut(&str) + Send,
) -> Result<ExitStatus> {
    let (reader, writer) = std::io::pipe()?;
    run.stdout(writer.try_clone()?).stderr(writer);
    let mut running = Running::start(run)?;
    // The command keeps its end of the pipe open until it is dropped or replaced.
    run.stdout(Stdio::null()).stderr(Stdio::null());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for text in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                let text = String::from_utf8_lossy(&text);
                say(&text);
                line(&text);
            }
        });
        let status = running.wait(Instant::now() + limit, || {});
        // Ends what the program left behind, or the pipe would never close.
        drop(running);
        status
    })
}

/// Prints one line at once, also when the output is a pipe that nobody reads any more.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

fn last(log: &Path) -> String {
    let line = tail(log, 1);
    line.chars().take(100).collect()
}

fn tail(log: &Path, lines: usize) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all.iter().skip(all.len().saturating_sub(lines)).copied().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_ends_in_time_gives_its_output() {
        let said = output(Duration::from_secs(30), Command::new("echo").arg("hello")).unwrap();
        assert_eq!(said, "hello");
    }

    #[test]
    fn a_program_that_takes_too_long_is_ended_and_named() {
        let error = output(Duration::ZERO, Command::new("sleep").arg("60")).unwrap_err();
        assert_eq!(format!("{error:#}"), "sleep: took too long and was ended");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = output(Duration::ZERO, &mut Command::new("no-such-program")).unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot start no-such-program"));
    }

    #[test]
    fn dropping_a_program_ends_what_it_started_too() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 61 & wait"]);
        let running = Running::start(&mut shell).unwrap();
        let group = running.group;
        drop(running);
        // The grandchild is reaped by init, not by us, so give that a moment.
        let deadline = Instant::now() + PATIENCE;
        while rustix::process::test_kill_process_group(group).is_ok() {
            assert!(Instant::now() < deadline, "the grandchild lives");
            std::thread::yield_now();
        }
    }
}
