"""What livefeed is compared with: a module for each peer, and what all of them share."""

from __future__ import annotations

from benchmarks.peers.centrifugo import CentrifugoPeer
from benchmarks.peers.livefeed import LivefeedPeer
from benchmarks.peers.mosquitto import MosquittoPeer
from benchmarks.peers.nats import NatsPeer
from benchmarks.peers.nchan import NchanPeer
from benchmarks.peers.peer import Peer
from benchmarks.peers.socketio import PythonSocketIoPeer, RedisSocketIoPeer, SocketIoPeer

PEERS: dict[str, type[Peer]] = {
    peer.name: peer
    for peer in (
        LivefeedPeer,
        NatsPeer,
        NchanPeer,
        SocketIoPeer,
        RedisSocketIoPeer,
        PythonSocketIoPeer,
        MosquittoPeer,
        CentrifugoPeer,
    )
}
"""By name; livefeed itself is the first."""
