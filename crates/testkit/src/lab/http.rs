//! Real HTTP servers: nginx where the machine has it, else a small one of our own. Both answer `/`
//! with the host's name and serve the files of the lab's `www` folder, below `/slow/` with about
//! 4 MB a second; the header `X-Real-Server` says who answered.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::process::wait_until;
use super::service::TICK;
use super::{Host, LabError, Stop, find_program};

/// The time within which a server must be reachable.
const START: Duration = Duration::from_secs(10);

impl Host {
    /// Starts an HTTP server on the port of all the host's addresses, IPv4 and IPv6, and returns
    /// when it can be reached.
    pub fn serve_http(&self, port: u16) -> Result<(), LabError> {
        match nginx() {
            Some(nginx) => self.serve_nginx(&nginx, port),
            None => self.serve_builtin_http(port),
        }
    }

    /// Starts the built-in server, a thread of this process, whatever the machine has.
    pub fn serve_builtin_http(&self, port: u16) -> Result<(), LabError> {
        let (name, www) = (self.name().to_owned(), self.lab.www());
        let open = || listeners(port);
        self.serve(open, move |listeners, stop| serve(listeners, &name, &www, stop))?;
        Ok(())
    }

    fn serve_nginx(&self, nginx: &Path, port: u16) -> Result<(), LabError> {
        let dir = self.lab_dir().join(format!("nginx-{}-{port}", self.name()));
        std::fs::create_dir_all(&dir).map_err(LabError::file(&dir))?;
        let config = dir.join("nginx.conf");
        let text = nginx_config(self.name(), &dir, &self.lab.www(), port);
        std::fs::write(&config, text).map_err(LabError::file(&config))?;
        let mut command = self.command(nginx);
        command.arg("-p").arg(&dir).arg("-c").arg(&config).args(["-e", "stderr"]);
        let process = self.spawn(&format!("nginx-{port}"), command)?;
        wait_until(&format!("nginx on {}", self.name()), START, || {
            if let Some(status) = process.status() {
                return Err(LabError::Ended {
                    name: format!("nginx on {}", self.name()),
                    status: status.to_string(),
                    log: process.log().trim_end().into(),
                });
            }
            self.enter(|| TcpStream::connect((Ipv6Addr::LOCALHOST, port)).is_ok())
        })
    }
}

/// The nginx to use, if the machine has one.
pub fn nginx() -> Option<PathBuf> {
    find_program("nginx")
}

/// Runs the built-in server for ever, in the current namespace: what a lab that is kept uses, whose
/// servers outlive the process that made them.
pub fn builtin_http(name: &str, www: &Path, port: u16) -> io::Result<()> {
    serve(listeners(port)?, name, www, &Stop::default());
    Ok(())
}

/// Bytes without a period that a faulty copy could hide in: xorshift64.
pub(super) fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// One process without workers (killing it is enough), and no file outside `dir` and `www`.
fn nginx_config(name: &str, dir: &Path, www: &Path, port: u16) -> String {
    let (dir, www) = (dir.display(), www.display());
    format!(
        "daemon off;
master_process off;
pid {dir}/pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
worker_rlimit_nofile 16384;
http {{
  access_log off;
  sendfile on;
  default_type application/octet-stream;
  client_max_body_size 0;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  server {{
    listen 0.0.0.0:{port} backlog=4096;
    listen [::]:{port} ipv6only=on backlog=4096;
    add_header X-Real-Server {name} always;
    location = / {{ default_type text/plain; return 200 \"{name}\\n\"; }}
    location / {{ root {www}; }}
    location /slow/ {{ alias {www}/; limit_rate 4m; }}
  }}
}}
"
    )
}

fn listeners(port: u16) -> io::Result<Vec<TcpListener>> {
    let v4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    // std leaves IPV6_V6ONLY as the system has it; where [::] takes IPv4 as well, drop the first.
    let v6: SocketAddr = (Ipv6Addr::UNSPECIFIED, port).into();
    let listeners = match TcpListener::bind(v6) {
        Ok(v6) => vec![v4, v6],
        Err(_) => {
            drop(v4);
            vec![TcpListener::bind(v6)?]
        }
    };
    for listener in &listeners {
        listener.set_nonblocking(true)?;
    }
    Ok(listeners)
}

fn serve(listeners: Vec<TcpListener>, name: &str, www: &Path, stop: &Stop) {
    let shared: Arc<(String, PathBuf)> = Arc::new((name.into(), www.into()));
    while !stop.is_set() {
        let mut idle = true;
        for listener in &listeners {
            if let Ok((stream, _)) = listener.accept() {
                idle = false;
                let shared = shared.clone();
                // Ends with the connection, which ends with the lab's namespaces.
                std::thread::spawn(move || answer(stream, &shared.0, &shared.1));
            }
        }
        if idle {
            std::thread::sleep(TICK / 10);
        }
    }
}

/// Answers the requests of one connection until it closes.
fn answer(stream: TcpStream, name: &str, www: &Path) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut requests = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    loop {
        let mut request = String::new();
        if requests.by_ref().take(8192).read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while requests.by_ref().take(8192).read_line(&mut header)? > 2 {
            header.clear();
        }
        let path = request.split(' ').nth(1).unwrap_or_default();
        let slow = path.strip_prefix("/slow/");
        let file = slow.unwrap_or(path.trim_start_matches('/'));
        let head = |status: &str, length: u64| {
            format!(
                "HTTP/1.1 {status}\r\nX-Real-Server: {name}\r\nContent-Length: {length}\r\n\r\n"
            )
        };
        if file.is_empty() {
            out.write_all(head("200 OK", name.len() as u64 + 1).as_bytes())?;
            out.write_all(format!("{name}\n").as_bytes())?;
        } else if !file.contains('/')
            && let Ok(mut content) = File::open(www.join(file))
        {
            out.write_all(head("200 OK", content.metadata()?.len()).as_bytes())?;
            // 40 kB every 10 ms.
            while io::copy(&mut Read::by_ref(&mut content).take(40_000), &mut out)? > 0 {
                if slow.is_some() {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        } else {
            out.write_all(head("404 Not Found", 0).as_bytes())?;
        }
    }
}
