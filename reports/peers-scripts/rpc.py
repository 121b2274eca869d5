"""Locust: one client that plays the examples of the JSON-RPC specification."""
import json, os

from locust import User, constant, events, task
from websocket import create_connection


def sorted_batch(value):
    return sorted(value, key=json.dumps) if isinstance(value, list) else value


class Client(User):
    wait_time = constant(3600)

    @task
    def play(self):
        with open(os.environ["EXCHANGES"]) as file:
            exchanges = json.load(file)
        socket = create_connection(os.environ["URL"], timeout=2)
        for number, (sent, expected) in enumerate(exchanges):
            error = None
            try:
                socket.send(sent)
                if expected is not None:
                    assert sorted_batch(json.loads(socket.recv())) == sorted_batch(expected), number
            except Exception as problem:
                error = problem
            self.environment.events.request.fire(request_type="WS", name="rpc", response_time=0, response_length=0,
                                                 exception=error, context={})
            if error:
                break
        self.environment.runner.quit()
