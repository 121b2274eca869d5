"""A worker of the EmProps Job Queue on the package websockets: `emprops_worker.py URL NEEDS`.

It does what it is assigned in 300 ms; with `fail`, its service is down.
"""
import asyncio
import json
import sys
import time

from websockets.asyncio.client import connect

url, needs = sys.argv[1:3]
ID = "worker-gpu-07"
HEARTBEAT = 1


async def main():
    async with connect(url) as socket:
        jobs = {}

        async def send(type, **members):
            await socket.send(json.dumps({"type": type, "worker_id": ID, "timestamp": int(time.time() * 1000), **members}))

        async def work(job):
            await send("job_accepted_by_worker", job_id=job)
            for progress in (25, 50, 75):
                await asyncio.sleep(0.1)
                await send("update_job_progress", job_id=job, progress=progress, status="in_progress")
            if needs == "fail":
                await send("fail_job", job_id=job, error="Service connection timeout", retry=False)
            else:
                await send("complete_job", job_id=job, processing_time=0.3, result={"success": True})

        async def beat():
            while True:
                await send("worker_heartbeat", status="busy" if jobs else "idle", current_jobs=list(jobs))
                await asyncio.sleep(HEARTBEAT)

        await send("register_worker", capabilities={"services": ["comfyui"]}, subscribe_to_jobs=True, status="idle")
        async for text in socket:
            message = json.loads(text)
            match message["type"]:
                case "worker_registered":
                    heartbeats = asyncio.create_task(beat())
                case "job_available":
                    await send("claim_job", max_jobs=1)
                case "job_assigned" if message["worker_id"] == ID:
                    jobs[message["job_id"]] = asyncio.create_task(work(message["job_id"]))
                case "job_update" if message["status"] == "cancelled" or message.get("worker_id", ID) != ID:
                    if job := jobs.pop(message["job_id"], None):
                        job.cancel()
                case "ping":
                    await socket.send(json.dumps({"type": "pong", "timestamp": int(time.time() * 1000)}))


asyncio.run(main())
