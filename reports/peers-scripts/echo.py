"""Locust: clients that send a message, wait for it to come back, and pause; PAUSE is the seconds from one message to the next."""
import itertools, os, time

from locust import User, constant_pacing, events, task
from websocket import create_connection

PAUSE = float(os.environ["PAUSE"])
MESSAGE = ('{"type":"echo","id":"%s","priority":50,"payload":{"service":"comfyui","model":"sd15","prompt":"a lighthouse on a cliff '
           'in the evening, oil on canvas","steps":20,"seed":123456789,"scale":7.5}}')
numbers = itertools.count()


class Client(User):
    wait_time = constant_pacing(PAUSE)

    def on_start(self):
        self.socket = create_connection(os.environ["URL"])
        # Otherwise all clients would send at the same time.
        time.sleep(PAUSE * next(numbers) / int(os.environ["CLIENTS"]) % 60)

    @task
    def echo(self):
        id = f"e{next(numbers)}"
        begun, error = time.perf_counter(), None
        self.socket.send(MESSAGE % id)
        text = self.socket.recv()
        if f'"id":"{id}"' not in text:
            error = ValueError("another id")
        self.environment.events.request.fire(request_type="WS", name="echo", response_time=(time.perf_counter() - begun) * 1000,
                                             response_length=len(text), exception=error, context={})
