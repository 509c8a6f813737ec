//! Why a packet was passed to the host, handed to the other hook or dropped: one counter each.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet was not forwarded. The discriminant is the index of its counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All reasons, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason with this discriminant; [`Reason::Inconsistent`] for any other number.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Self {
                $(if number == Self::$name as u32 { return Self::$name; })*
                Self::Inconsistent
            }

            /// Whether packets with this reason have no other counter. A packet that cannot be
            /// rewritten was counted as forwarded before, as the kernel counts; an error that is
            /// sent is no packet that came; one handed to rvsd is counted when it is put back, by
            /// what becomes of it then, or by rvsd, which gave it up.
            pub const fn is_alone(self) -> bool {
                !matches!(
                    self,
                    Self::RewriteFailed
                        | Self::IcmpSent
                        | Self::SlowFragment
                        | Self::SlowTooBig
                        | Self::SlowApp
                )
            }

            /// The name that `rvs status --reasons` prints.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// Passed: not IPv4 or IPv6.
    NotIp = "pass.not_ip",
    /// Passed: a frame for another host's MAC address.
    OtherHost = "pass.other_host",
    /// Passed: a frame of a VLAN, which the VLAN's own interface sees next.
    Vlan = "pass.vlan",
    /// Passed: a protocol that is not balanced.
    OtherProtocol = "pass.other_protocol",
    /// Passed: ICMP, but no error about a connection's packet. From XDP, which leaves those to TC,
    /// all ICMP.
    Icmp = "pass.icmp",
    /// Passed: no connection and no service.
    NotOurs = "pass.not_ours",
    /// Passed: for a service, but without a connection and not opening one.
    NoConnection = "pass.no_connection",
    /// Passed: a fragment of what is not balanced, or whose first fragment nobody can wait for.
    Fragment = "pass.fragment",
    /// Passed: IPv4 options or IPv6 extension headers that the host drops or answers, or more than are
    /// followed. From XDP, which leaves them to TC, all.
    ExtensionHeader = "pass.extension_header",
    /// Passed: headers are cut short or contradict each other.
    Malformed = "pass.malformed",
    /// Passed from XDP to TC: the destination, or the client, is the director itself.
    LocalDest = "pass.local_dest",
    /// Passed from XDP to TC: the neighbour is not resolved.
    PuntNeighbour = "punt.neighbour",
    /// Passed from XDP to TC: its mark decides which service it is for.
    PuntMark = "punt.mark",
    /// Passed from XDP to TC, and within TC: a persistence engine has to read it.
    PuntEngine = "punt.engine",
    /// Passed from XDP to TC: an ICMP error is due, or may be: in the place of a connection that is over.
    PuntIcmp = "punt.icmp",
    /// Passed from XDP to TC: the way out cannot take XDP frames.
    PuntDevice = "punt.device",
    /// Passed from XDP to TC: the sender left the transport checksum for a device to finish.
    PuntChecksum = "punt.checksum",
    /// Passed from XDP to TC: a fragment.
    PuntFragment = "punt.fragment",
    /// Passed: a reply of a connection that netfilter tracks, which is counted as it leaves, or an ICMP error
    /// about its packets; or a client's packet by direct routing or a tunnel, which comes back.
    Tracked = "pass.tracked",
    /// Passed from XDP to TC: of such a connection.
    PuntTracked = "punt.tracked",
    /// Passed from XDP to TC: of a connection whose packets rvsd inspects, as FTP's control connections.
    PuntApp = "punt.app",
    /// Handed to rvsd: data of such a connection, or the first packet of one that it announced.
    SlowApp = "slow.app",
    /// Handed to rvsd: a fragment that came before its first, or a first one that is too short.
    SlowFragment = "slow.fragment",
    /// Handed to rvsd: too big for the way out and without DF, to be cut into fragments; or a super-packet
    /// of SCTP, for a tunnel, to be cut into its segments.
    SlowTooBig = "slow.too_big",
    /// Forwarded: a fragment, with the datagram that its first was counted as.
    FragmentSent = "forward.fragment",
    /// Forwarded: on a connection that has no destination (`cache_bypass`), or whose destination was
    /// removed; such packets are in no other counter.
    Uncounted = "forward.uncounted",
    /// Dropped: a first fragment of SCTP whose port masquerading would change, which its checksum,
    /// over all of the datagram, covers.
    FragmentSctp = "drop.fragment_sctp",
    /// Dropped: a fragment of a datagram whose first was dropped.
    FragmentDropped = "drop.fragment",
    /// Dropped: a fragment of a datagram whose first did not come in time.
    FragmentLate = "drop.fragment_late",
    /// Dropped: more fragments than can be held.
    FragmentLimit = "drop.fragment_limit",
    /// Dropped: fragments that contradict each other.
    FragmentInvalid = "drop.fragment_invalid",
    /// Dropped: a first fragment without the whole transport header, which rvsd cannot complete.
    TinyFragment = "drop.fragment_tiny",
    /// Dropped, answered by ICMP port unreachable: no destination is available.
    NoDest = "drop.no_dest",
    /// Dropped, answered by ICMP port unreachable: a real server's packet that belongs to no connection
    /// (`nat_icmp_send`).
    RealServer = "drop.real_server",
    /// Dropped: the service's persistence engine finds no Call-ID in it.
    NoCallId = "drop.no_call_id",
    /// Dropped, answered by ICMP time exceeded: the TTL or hop limit ran out.
    TtlExceeded = "drop.ttl_exceeded",
    /// Dropped, answered by ICMP fragmentation needed or packet too big, where anybody is told.
    TooBig = "drop.too_big",
    /// Dropped: the connection table has no place for a new connection.
    TableFull = "drop.table_full",
    /// Dropped: an established connection has the new one's reply addresses and ports.
    ReplyInUse = "drop.reply_in_use",
    /// Dropped: the destination of an established connection is gone.
    DestGone = "drop.dest_gone",
    /// Dropped: it asks for a new connection in place of one that netfilter tracked, and forgets within
    /// half a second.
    TrackedAnew = "drop.tracked",
    /// Dropped: SCTP without a chunk and without a connection.
    NoChunk = "drop.no_chunk",
    /// Dropped: a new connection, to defend against a flood (`drop_packet`).
    Defence = "drop.defence",
    /// Dropped: there is no route to the destination or client.
    NoRoute = "drop.no_route",
    /// Dropped: an ICMP error about a masqueraded connection's packet has a wrong checksum.
    BadChecksum = "drop.bad_checksum",
    /// Dropped: a map is missing an element that the configuration names.
    Inconsistent = "drop.inconsistent",
    /// Dropped: the packet could not be rewritten.
    RewriteFailed = "drop.rewrite_failed",
    /// Answered: an ICMP error was sent back.
    IcmpSent = "sent.icmp_error",
}
