"""Locust: clients that connect and wait."""
import os

from locust import User, constant, task
from websocket import create_connection


class Client(User):
    wait_time = constant(3600)

    def on_start(self):
        self.socket = create_connection(os.environ["URL"])

    @task
    def wait(self):
        pass
