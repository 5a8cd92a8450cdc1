// Streams a text to `proactivellm serve` from JavaScript; it needs nothing but Node 22.
//
//     proactivellm serve &
//     node examples/realtime.mjs "Ich habe gestern einen alten Freund getroffen."

const [source, url = "ws://127.0.0.1:8000/v1/realtime?model=tatoeba-de-en", key] =
  process.argv.slice(2);
// A browser cannot send headers: a key travels as a subprotocol, as it does to OpenAI.
const protocols = key ? ["realtime", `openai-insecure-api-key.${key}`] : [];
const socket = new WebSocket(url, protocols);
const send = (event) => socket.send(JSON.stringify(event));
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

socket.onopen = async () => {
  for (const word of source.split(/\s+/)) {
    send({ type: "input_text_buffer.append", text: `${word} ` });
    await pause(300);
  }
  send({ type: "input_text_buffer.commit" });
};

socket.onmessage = ({ data }) => {
  const event = JSON.parse(data);
  if (event.type === "response.output_text.delta") {
    process.stdout.write(event.delta);
  } else if (event.type === "response.done") {
    process.stdout.write("\n");
    socket.close();
  } else if (event.type === "error") {
    console.error(`error: ${event.error.message}`);
    socket.close();
    process.exitCode = 2;
  }
};

socket.onerror = () => {
  console.error(`error: no connection to ${url}`);
  process.exitCode = 2;
};
