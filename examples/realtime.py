"""Streams a text to `proactivellm serve` with the official client of OpenAI.

proactivellm serve &
pip install openai
python examples/realtime.py "Ich habe gestern einen alten Freund getroffen."
"""

import asyncio
import sys

from openai import AsyncOpenAI


async def main(source: str, url: str = "http://127.0.0.1:8000/v1", key: str = "unused") -> str:
    """Sends the words of a source one by one; prints and returns what is written meanwhile."""
    client = AsyncOpenAI(base_url=url, api_key=key)
    async with client.realtime.connect(model="tatoeba-de-en") as connection:

        async def speak() -> None:
            for word in source.split():
                await connection.send({"type": "input_text_buffer.append", "text": f"{word} "})
                await asyncio.sleep(0.3)
            await connection.send({"type": "input_text_buffer.commit"})

        speaking = asyncio.create_task(speak())
        written = ""
        async for event in connection:
            if event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
                written += event.delta
            elif event.type == "error":
                raise SystemExit(f"error: {event.error.message}")
            elif event.type == "response.done":
                break
        await speaking
    print()
    return written


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
