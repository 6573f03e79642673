//! Which system calls are left, by seccomp. All others fail with EPERM.
//!
//! What is done through an io_uring is not looked at by seccomp; the data path reads TAPs by one. Landlock and the lack of
//! capabilities hold there, too.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Whatever their arguments are: memory, threads, waiting, the time, and what is done with descriptors and sockets.
const ALWAYS: &[i64] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    // Which is answered by the other filter.
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_listen,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

/// For those who have files left.
pub(super) const FILES: &[i64] = &[
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statx,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
];

/// Requests to devices: of queues of TAPs, and what the standard library does with sockets.
const REQUESTS: [u64; 5] =
    [libc::FIONBIO, libc::FIONREAD, libc::TUNGETIFF, libc::TUNSETOFFLOAD, libc::TUNSETVNETHDRSZ];
/// What is done with descriptors.
const DESCRIPTOR_COMMANDS: [i32; 5] =
    [libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL];
/// Families of sockets and their types.
const SOCKETS: [(i32, i32); 4] = [
    (libc::AF_INET, libc::SOCK_STREAM),
    (libc::AF_INET, libc::SOCK_DGRAM),
    (libc::AF_INET6, libc::SOCK_STREAM),
    (libc::AF_INET6, libc::SOCK_DGRAM),
];
/// The part of a socket's type that is no flag.
const TYPE: u64 = 0xf;

/// Gives up all calls but those above and `further`, for the calling thread and those that it starts.
///
/// # Errors
/// Why nothing was given up.
pub(super) fn keep(further: &[i64]) -> Result<(), Error> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    // Then threads are started by the call of before, whose arguments can be looked at.
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let no_such_call = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let unknown = SeccompFilter::new(unknown, SeccompAction::Allow, no_such_call, arch)?;
    let mut kept: BTreeMap<i64, Vec<SeccompRule>> =
        ALWAYS.iter().chain(further).map(|call| (*call, Vec::new())).collect();
    kept.extend(with_arguments()?);
    let forbidden = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let kept = SeccompFilter::new(kept, forbidden, SeccompAction::Allow, arch)?;
    for filter in [unknown, kept] {
        let program: BpfProgram = filter.try_into()?;
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

/// Calls that are left with some arguments only.
fn with_arguments() -> Result<Vec<(i64, Vec<SeccompRule>)>, Error> {
    let is = |index, value: u64| condition(index, SeccompCmpOp::Eq, value);
    let masked = |index, mask, value| condition(index, SeccompCmpOp::MaskedEq(mask), value);
    let number = |number: i32| u64::from(number.unsigned_abs());
    let not_executable =
        || -> Result<Vec<SeccompRule>, Error> { Ok(vec![rule([masked(2, number(libc::PROT_EXEC), 0)?])?]) };
    let each = |index, values: &[u64]| -> Result<Vec<SeccompRule>, Error> {
        values.iter().map(|value| rule([is(index, *value)?])).collect()
    };
    let socket = |(family, kind): &(i32, i32)| -> Result<SeccompRule, Error> {
        Ok(SeccompRule::new(vec![is(0, number(*family))?, masked(1, TYPE, number(*kind))?])?)
    };
    let thread = number(libc::CLONE_THREAD);
    Ok(vec![
        (libc::SYS_mmap, not_executable()?),
        (libc::SYS_mprotect, not_executable()?),
        (libc::SYS_clone, vec![rule([masked(0, thread, thread)?])?]),
        (libc::SYS_socket, SOCKETS.iter().map(socket).collect::<Result<_, Error>>()?),
        // Between two threads of an executor.
        (libc::SYS_socketpair, each(0, &[number(libc::AF_UNIX)])?),
        (libc::SYS_ioctl, each(1, &REQUESTS)?),
        (libc::SYS_fcntl, each(1, &DESCRIPTOR_COMMANDS.map(number))?),
        // The name of a thread.
        (libc::SYS_prctl, each(0, &[number(libc::PR_SET_NAME)])?),
        // Limits are looked at, and not set.
        (libc::SYS_prlimit64, vec![rule([long(2, 0)?])?]),
    ])
}

fn rule(conditions: [SeccompCondition; 1]) -> Result<SeccompRule, Error> {
    Ok(SeccompRule::new(conditions.to_vec())?)
}

/// Of the lower half of an argument: the kernel looks at no more of those that are numbers.
fn condition(index: u8, op: SeccompCmpOp, value: u64) -> Result<SeccompCondition, Error> {
    Ok(SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value)?)
}

/// Of all of an argument.
fn long(index: u8, value: u64) -> Result<SeccompCondition, Error> {
    Ok(SeccompCondition::new(index, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value)?)
}
