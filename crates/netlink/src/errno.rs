//! The errnos that IPVS answers with, by their Linux numbers.

/// Operation not permitted.
pub const EPERM: i32 = 1;
/// No such destination or scheduler.
pub const ENOENT: i32 = 2;
/// No such service.
pub const ESRCH: i32 = 3;
/// Out of memory, or of places in a table.
pub const ENOMEM: i32 = 12;
/// Another dump is under way.
pub const EBUSY: i32 = 16;
/// There already is one.
pub const EEXIST: i32 = 17;
/// No such device.
pub const ENODEV: i32 = 19;
/// An argument makes no sense.
pub const EINVAL: i32 = 22;
/// A number out of range.
pub const ERANGE: i32 = 34;
/// No such command.
pub const EOPNOTSUPP: i32 = 95;
/// No such protocol.
pub const EPROTONOSUPPORT: i32 = 93;
/// No such address family.
pub const EAFNOSUPPORT: i32 = 97;
