//! IPVS's synchronisation protocol: messages by which a director that balances (the master) tells
//! others (backups) of its connections, over UDP multicast. No sockets and no clocks here.
//!
//! Written after what Linux 6.1 sends and takes: `tests/oracle/recorded/sync_sent.jsonl` and
//! `sync_taken.jsonl`.
#![forbid(unsafe_code)]

mod due;
mod entry;
mod message;
mod read;
mod write;

pub use due::{Due, Seen, Sent, Settings};
pub use entry::{Delta, Engine, Entry, flags};
pub use message::{Entries, Message, MessageError, Version};
pub use read::EntryError;
pub use write::Batch;

/// Multicast group that daemons use if none is named (`IP_VS_SYNC_GROUP`).
pub const GROUP: std::net::Ipv4Addr = std::net::Ipv4Addr::new(224, 0, 0, 81);
/// UDP port that daemons use if none is named (`IP_VS_SYNC_PORT`).
pub const PORT: u16 = 8848;
/// TTL of messages if none is named.
pub const TTL: u8 = 1;
/// Longest name of a persistence engine (`IP_VS_PENAME_MAXLEN`).
pub const ENGINE_NAME: usize = 16;
/// Most of a persistence engine's data (`IP_VS_PEDATA_MAXLEN`).
pub const ENGINE_DATA: usize = 255;
