//! Destinations that somebody else has chosen, and sources that he wants hidden.

use super::*;
use crate::connection::{Connection, ConnectionId, Status};
use crate::tuple::{Direction, Tuple};

const MARKS: [u32; 3] = [7, 8, 9];

fn backend<A: Address>(host: u16) -> Endpoint<A> {
    inside(1000 + host, 8080)
}

fn towards<A>(destination: Endpoint<A>, masquerade: bool) -> Towards<A> {
    Towards { destination: Some(destination), masquerade: masquerade.then_some(0) }
}

/// Opens a connection that goes elsewhere than its packet says: which it is, and the tuple it leaves with.
#[track_caller]
fn begin<A: Address>(
    router: &mut Router<A>,
    bytes: &[u8],
    towards: Towards<A>,
) -> Result<(ConnectionId, Tuple<A>), Refusal> {
    let packet = parse(bytes).unwrap();
    let tracked = router.nat.track(router.now, 0, &packet, bytes, ChecksumState::Complete);
    let Tracked::New(new) = tracked else { panic!("{tracked:?}") };
    let way = Way { ingress: INSIDE, egress: Some(INSIDE), zone: 0 };
    let prepared = router.nat.prepare(router.now, &new, towards, way)?.marked(MARKS);
    let id = router.nat.commit(router.now, &prepared)?;
    let connection = router.nat.get(id).unwrap();
    assert_eq!(connection.marks, MARKS);
    Ok((id, connection.translated(Direction::Original)))
}

fn connection<A: Address>(router: &Router<A>, id: ConnectionId) -> Connection<A> {
    *router.nat.get(id).unwrap()
}

in_both_families! {
    fn a_chosen_backend_is_answered_for_and_the_marks_are_kept<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        let [client, service] = [inside::<A>(1, 4000), inside(500, 80)];
        let (id, leaves) = begin(&mut router, &udp(client, service), towards(backend(1), false)).unwrap();
        assert_eq!([leaves.source, leaves.destination], [client, backend(1)]);
        let back = router.take(INSIDE, udp::<A>(backend(1), client)).by(INSIDE);
        assert_eq!(ends::<A>(&back), [service, client]);
        assert_eq!(connection(&router, id).inside().source, backend(1));
    }

    fn a_masquerade_asks_no_rule_and_is_undone_on_the_way_back<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        // No rule is for clients outside.
        let [client, service] = [outside::<A>(1, 4000), external(0, 30_080)];
        let (id, leaves) = begin(&mut router, &udp(client, service), towards(backend(1), true)).unwrap();
        assert_eq!([leaves.source, leaves.destination], [external(0, 4000), backend(1)]);
        assert!(connection(&router, id).status.has(Status::LEASED));
        let back = udp::<A>(backend(1), external(0, 4000));
        let Fate::Left(_, back) = router.take(INSIDE, back) else { panic!("it is known") };
        assert_eq!(ends::<A>(&back), [service, client]);
        assert_eq!(router.nat.pool(0).unwrap().owner(external::<A>(0, 0).address, ports::Protocol::Udp, 4000), Some(id.slot));
        assert!(router.nat.remove(id, router.now));
        assert!(!router.nat.remove(id, router.now));
        assert_eq!(router.nat.pool(0).unwrap().owner(external::<A>(0, 0).address, ports::Protocol::Udp, 4000), None);
    }

    /// The router's own programs have the address already that they are to be seen with.
    fn who_masquerades_as_itself_holds_its_port_and_gives_it_back<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        let (own, service) = (external::<A>(0, 4000), inside(500, 80));
        let (first, leaves) = begin(&mut router, &udp(own, service), towards(backend(1), true)).unwrap();
        assert_eq!([leaves.source, leaves.destination], [own, backend(1)]);
        assert_eq!(connection(&router, first).outbound(), Direction::Original);
        assert_eq!(connection(&router, first).external(), Some(own.address));
        // Nobody else gets the port, and its own next connection shares it.
        let (other, leaves) = begin(&mut router, &udp(inside::<A>(2, 4000), service), towards(backend(1), true)).unwrap();
        assert_ne!(leaves.source.port, 4000);
        let (second, leaves) = begin(&mut router, &udp(own, inside(501, 80)), towards(backend(2), true)).unwrap();
        assert_eq!(leaves.source, own);
        let owner = |router: &Router<A>| {
            router.nat.pool(0).unwrap().owner(own.address, ports::Protocol::Udp, own.port)
        };
        assert_eq!(owner(&router), Some(first.slot));
        router.nat.remove(first, router.now);
        assert_eq!(owner(&router), Some(second.slot));
        router.nat.remove(second, router.now);
        router.nat.remove(other, router.now);
        assert_eq!(owner(&router), None);
        // Without the address its connections end.
        let (third, _) = begin(&mut router, &udp(own, service), towards(backend(1), true)).unwrap();
        assert_eq!(router.nat.remove_address(0, own.address, router.now), 1);
        assert!(router.nat.get(third).is_none());
    }

    fn a_backend_behind_the_pools_own_address_sees_who_asks<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        let own = external::<A>(0, 8080);
        let (_, leaves) = begin(&mut router, &udp(inside::<A>(1, 4000), inside(500, 80)), towards(own, true)).unwrap();
        assert_eq!(leaves.source, inside(1, 4000));
        // And if that is itself, the address it has asked for.
        let (_, leaves) = begin(&mut router, &udp(external::<A>(0, 4000), inside(500, 80)), towards(own, true)).unwrap();
        assert_eq!(leaves.source, inside(500, 4000));
    }

    fn who_is_its_own_backend_is_seen_with_the_address_it_asked_for_or_the_pools<A>() {
        for masquerade in [false, true] {
            let mut router = Router::<A>::masquerade(Behaviour::node());
            let client = Endpoint { port: 4000, ..backend::<A>(1) };
            let (_, leaves) = begin(&mut router, &udp(client, inside(500, 80)), towards(backend(1), masquerade)).unwrap();
            let seen = if masquerade { external(0, 4000) } else { inside(500, 4000) };
            assert_eq!([leaves.source, leaves.destination], [seen, backend(1)]);
            let Fate::Left(_, back) = router.take(INSIDE, udp::<A>(backend(1), seen)) else { panic!() };
            assert_eq!(ends::<A>(&back), [inside(500, 80), client]);
        }
    }

    fn two_services_on_one_backend_are_told_apart_by_the_clients_port<A>() {
        for masquerade in [false, true] {
            let mut router = Router::<A>::masquerade(Behaviour::node());
            let client = inside::<A>(1, 4000);
            let seen: Vec<Endpoint<A>> = [inside(500, 80), inside(501, 80)]
                .into_iter()
                .map(|service| begin(&mut router, &udp(client, service), towards(backend(1), masquerade)).unwrap().1.source)
                .collect();
            assert_ne!(seen[0], seen[1]);
            for (seen, service) in seen.into_iter().zip([inside(500, 80), inside(501, 80)]) {
                let Fate::Left(_, back) = router.take(INSIDE, udp::<A>(backend(1), seen)) else { panic!() };
                assert_eq!(ends::<A>(&back), [service, client]);
            }
        }
    }

    fn a_host_that_is_no_more_takes_its_connections_along<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        let service = inside::<A>(500, 80);
        let opened = begin(&mut router, &udp(inside::<A>(1, 4000), service), towards(backend(1), false)).unwrap().0;
        let answered = begin(&mut router, &udp(inside::<A>(2, 4000), service), towards(backend(2), true)).unwrap().0;
        let masqueraded = begin(&mut router, &udp(inside::<A>(1, 4001), service), towards(backend(3), true)).unwrap().0;
        let other = begin(&mut router, &udp(inside::<A>(3, 4000), service), towards(backend(3), false)).unwrap().0;
        assert_eq!(router.nat.remove_host(inside::<A>(1, 0).address, router.now), 2);
        assert_eq!(router.nat.remove_host(backend::<A>(2).address, router.now), 1);
        assert_eq!(router.nat.remove_host(service.address, router.now), 0);
        let left = [opened, answered, masqueraded, other].map(|id| router.nat.get(id).is_some());
        assert_eq!(left, [false, false, false, true]);
    }

    fn what_a_packet_would_open_is_said_while_its_connection_stands<A>() {
        let mut router = Router::<A>::masquerade(Behaviour::node());
        let bytes = udp(inside::<A>(1, 4000), inside(500, 80));
        begin(&mut router, &bytes, towards(backend(1), false)).unwrap();
        let packet = parse(&bytes).unwrap();
        let anew = router.nat.reopening(router.now, 0, &packet, &bytes, ChecksumState::Complete).unwrap();
        assert_eq!(Some(anew.tuple), packet.tuple(0));
        let mut damaged = bytes.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert!(router.nat.reopening(router.now, 0, &packet, &damaged, ChecksumState::Complete).is_none());
    }
}
