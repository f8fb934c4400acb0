//! Two ends without a network between them.

use super::*;

struct Pair {
    client: Peer,
    server: Peer,
    tally: Tally,
    spis: BTreeSet<u32>,
    now: Duration,
}

const STRONGSWAN: Retry =
    Retry { first: Duration::from_secs(4), tenths: 18, longest: Duration::from_secs(80), tries: 5 };

impl Pair {
    fn new(v2: bool, retry: Retry) -> Self {
        let dialect = Dialect { v2, aggressive: false, xauth: true, auth_rounds: 1 };
        let profile = Profile {
            retry,
            child_renewal: Some(Duration::from_secs(100)),
            child_life: Duration::from_secs(150),
            ike_renewal: None,
            ike_life: Duration::from_secs(9999),
            dpd: None,
            eager: false,
            initial_contact: true,
            replaces: true,
            child_tail: Duration::from_secs(1),
        };
        let peer = |side, stream| Peer::new(side, 0, dialect, profile, Dice::new(1, stream));
        Self {
            client: peer(Side::Client, 1),
            server: peer(Side::Server, 2),
            tally: Tally::default(),
            spis: BTreeSet::new(),
            now: Duration::ZERO,
        }
    }

    /// Lets one end do something; returns what it sends.
    fn step(&mut self, side: Side, act: impl FnOnce(&mut Peer, &mut Context<'_>)) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let peer = match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        };
        let mut context = Context {
            now: self.now,
            round_trip: Duration::ZERO,
            tally: &mut self.tally,
            spis: &mut self.spis,
            out: &mut out,
        };
        act(peer, &mut context);
        out
    }

    /// Carries packets to the other end and back until both are silent.
    fn carry(&mut self, mut to_server: Vec<Vec<u8>>, mut to_client: Vec<Vec<u8>>) {
        while !to_server.is_empty() || !to_client.is_empty() {
            let deliver = |pair: &mut Self, side, packets: Vec<Vec<u8>>| -> Vec<Vec<u8>> {
                let take = |bytes: Vec<u8>| {
                    let packet = Packet::parse(&bytes).unwrap();
                    pair.step(side, |peer, context| _ = peer.receive(context, &packet))
                };
                packets.into_iter().flat_map(take).collect()
            };
            let answers = deliver(self, Side::Server, to_server);
            to_server = deliver(self, Side::Client, to_client);
            to_client = answers;
        }
    }

    fn connect(&mut self) {
        let first = self.step(Side::Client, |peer, context| peer.dial(context));
        self.carry(first, Vec::new());
        assert!(self.client.can_send() && self.server.can_send());
    }
}

#[test]
fn an_unanswered_request_is_sent_when_strongswan_does_and_then_given_up() {
    let mut pair = Pair::new(true, STRONGSWAN);
    let mut sent = Vec::new();
    let first = pair.step(Side::Client, |peer, context| peer.dial(context));
    assert_eq!(first.len(), 1);
    while let Some(at) = pair.client.poll_timeout().filter(|_| !pair.client.went_down) {
        pair.now = at;
        let again = pair.step(Side::Client, |peer, context| peer.handle_timeout(context));
        assert!(again.iter().all(|packet| *packet == first[0]), "the very same message");
        sent.extend(again.iter().map(|_| at.as_millis()));
    }
    assert_eq!(sent, [4_000, 11_200, 24_160, 47_488, 89_478]);
    assert_eq!(pair.now.as_secs(), 165);
}

#[test]
fn quick_mode_follows_xauth_and_the_responder_sends_after_the_third_message() {
    let mut pair = Pair::new(false, STRONGSWAN);
    pair.connect();
    assert_eq!((pair.client.children.len(), pair.server.children.len()), (1, 1));
    assert_eq!(pair.client.children[0].spi_in, pair.server.children[0].spi_out);
    assert_eq!(pair.client.children[0].spi_out, pair.server.children[0].spi_in);
}

#[test]
fn of_two_simultaneous_rekeys_one_sa_is_left() {
    for stream in 0..8 {
        let mut pair = Pair::new(true, STRONGSWAN);
        (pair.client.dice, pair.server.dice) = (Dice::new(stream, 3), Dice::new(stream, 4));
        pair.connect();
        let old = pair.client.children[0].spi_in;
        pair.now = Duration::from_secs(101);
        let to_server = pair.step(Side::Client, |peer, context| peer.handle_timeout(context));
        let to_client = pair.step(Side::Server, |peer, context| peer.handle_timeout(context));
        assert_eq!((to_server.len(), to_client.len()), (1, 1), "their requests cross");
        pair.carry(to_server, to_client);
        assert_eq!(pair.tally.totals.simultaneous, 2, "both noticed");
        let left = |peer: &Peer| -> Vec<(u32, u32)> {
            let open = peer.children.iter().filter(|child| !child.closing && child.can_send);
            open.map(|child| (child.spi_in, child.spi_out)).collect()
        };
        let (client, server) = (left(&pair.client), left(&pair.server));
        assert_eq!((client.len(), server.len()), (1, 1));
        assert_eq!(client[0], (server[0].1, server[0].0));
        assert_ne!(client[0].0, old);
    }
}

#[test]
fn a_restarted_server_ignores_what_it_does_not_know() {
    let mut pair = Pair::new(true, STRONGSWAN);
    pair.connect();
    _ = pair.step(Side::Server, |peer, context| peer.forget(context));
    let esp = pair.step(Side::Client, |peer, context| _ = peer.send(context, Op::Ask));
    let packet = Packet::parse(&esp[0]).unwrap();
    let silence = pair.step(Side::Server, |peer, context| assert_eq!(peer.receive(context, &packet), None));
    assert!(silence.is_empty());
}
