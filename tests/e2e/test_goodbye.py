"""A client that leaves is announced only when the operator wants it."""

from harness import each_worker_count


def leave_in_three_ways(clients):
    clients[0].close()
    clients[0].expect_close(1000, before=[], answer=False)
    clients[1].drop()
    clients[2].reset()


def test_nobody_is_told_of_a_client_that_leaves(crier):
    server = crier("--no-welcome", "-v", workers=2)
    stays, *leave = [server.connect() for _ in range(4)]
    names = [client.name for client in leave]
    start = len(server.log)
    leave_in_three_ways(leave)
    # The log shows that the server has noticed all three.
    for name in names:
        server.wait_log(f"{name}(?!\\d)", start=start)
    server.line("that is all")
    assert stays.texts_until("that is all") == []


@each_worker_count
def test_goodbye_tells_everybody_who_is_left(crier, workers):
    server = crier("--no-welcome", "--goodbye", "%a has disconnected.", workers=workers)
    places = server.connect_everywhere(workers, at_least=4)
    leave = [client for clients in places.values() for client in clients[:3]]
    stay = [client for client in server.clients if client not in leave]
    expected = sorted(f"{client.name} has disconnected." for client in leave)
    for clients in places.values():
        leave_in_three_ways(clients[:3])
    orders = [[client.recv_text("a goodbye") for _ in expected] for client in stay]
    assert sorted(orders[0]) == expected
    assert all(order == orders[0] for order in orders), "not all see the goodbyes in one order"
    for client in stay:
        client.expect_pong()


def test_a_connection_that_never_became_a_client_gets_no_goodbye(crier):
    server = crier("--no-welcome", "--goodbye", "%a has disconnected.")
    stays = server.connect()
    with server.socket() as probe:
        probe.send_raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        probe.read_response()
    server.line("that is all")
    assert stays.texts_until("that is all") == []
