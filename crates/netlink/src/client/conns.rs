//! The connection table, page by page; a kernel's is in `/proc`.

use std::io::{BufRead, BufReader};

use super::{Client, ClientError};
use crate::attr::Writer;
use crate::ipvs::{self, Conn, cmd_attr, command};
use crate::proc;

/// Rows of a page: about half a megabyte.
const PAGE: u32 = 4096;

impl Client {
    /// Calls `row` for each connection until it returns false. Connections that come and go
    /// meanwhile may be missed.
    pub fn conns(&mut self, mut row: impl FnMut(Conn) -> bool) -> Result<(), ClientError> {
        if self.is_kernel {
            return kernel(row);
        }
        let (mut cursor, mut wanted) = (Some(0), true);
        while let Some(at) = cursor.take().filter(|_| wanted) {
            let mut attrs = Writer::new();
            attrs.u64(cmd_attr::CURSOR, at).u32(cmd_attr::LIMIT, PAGE);
            self.dump(command::GET_CONNS, &attrs, |_, attrs| {
                cursor = attrs.u64(cmd_attr::CURSOR).or(cursor);
                if let Some(conn) = attrs.nested(cmd_attr::CONN).as_ref().and_then(ipvs::conn) {
                    wanted = wanted && row(conn);
                }
            })?;
        }
        Ok(())
    }
}

/// Reads the kernel's table.
fn kernel(mut row: impl FnMut(Conn) -> bool) -> Result<(), ClientError> {
    let failed = |reason| ClientError::Proc { reason };
    let file = std::fs::File::open(proc::CONNS).map_err(failed)?;
    for line in BufReader::new(file).split(b'\n') {
        let line = line.map_err(failed)?;
        if let Some(conn) = proc::conn(&line)
            && !row(conn)
        {
            break;
        }
    }
    Ok(())
}
