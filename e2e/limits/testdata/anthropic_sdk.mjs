// Sees with Anthropic's SDK for Node how quotas shorten and refuse answers, and an
// error event.
//
// usage: anthropic_sdk.mjs BASE_URL http1|http2 STREAMED SHORTENED BROKEN
// The last ones are keys; SDKS is the folder of the packages. Prints one JSON
// object per call: what the SDK made of it.
import { createRequire } from 'node:module';

const require = createRequire(process.env.SDKS + '/');
const { Anthropic, APIError } = require('@anthropic-ai/sdk');
const { fetch, H2CClient } = require('undici');
const [base, protocol, streamed, shortened, broken] = process.argv.slice(2);
// Without TLS HTTP/2 is spoken by prior knowledge.
const transport = protocol === 'http2' ? { fetch, fetchOptions: { dispatcher: new H2CClient(base) } } : {};
const client = (key) => new Anthropic({ baseURL: base, apiKey: key, ...transport });
const say = (what) => console.log(JSON.stringify(what));
const failed = (err) => {
  if (!(err instanceof APIError)) throw err;
  return { status: err.status, error: err.error?.error?.type };
};

const ask = { model: 'tiny', max_tokens: 1000, messages: [{ role: 'user', content: 'hi' }] };
const stream = client(streamed).messages.stream(ask);
let pieces = 0;
stream.on('text', () => pieces++);
const { response } = await stream.withResponse();
const answer = await stream.finalMessage();
say({
  call: 'stream', pieces, bound: response.headers.get('x-quota-max-tokens'),
  tokens: answer.usage.output_tokens, finish: answer.stop_reason,
});

const whole = await client(shortened).messages.create(ask).withResponse();
say({
  call: 'whole', bound: whole.response.headers.get('x-quota-max-tokens'),
  tokens: whole.data.usage.output_tokens, finish: whole.data.stop_reason,
});

try {
  for (let i = 0; i < 3; i++) await client(shortened).messages.create(ask); // what was kept for the prompt is left
  say({ call: 'spent', error: 'none' });
} catch (err) {
  say({ call: 'spent', ...failed(err) });
}

pieces = 0;
try {
  for await (const event of await client(broken).messages.create({ ...ask, stream: true, sim: { error_after: 5 } })) {
    if (event.type === 'content_block_delta') pieces++;
  }
  say({ call: 'broken', pieces, error: 'none' });
} catch (err) {
  say({ call: 'broken', pieces, error: failed(err).error });
}
process.exit(0); // a kept connection would keep it alive
