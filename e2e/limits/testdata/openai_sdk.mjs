// Sees with OpenAI's SDK for Node how quotas end and shorten answers.
//
// usage: openai_sdk.mjs BASE_URL http1|http2 ENDING SHORTENED RESPONSES
// The last ones are keys; SDKS is the folder of the packages. Prints one JSON
// object per call: what the SDK made of it.
import { createRequire } from 'node:module';

const require = createRequire(process.env.SDKS + '/');
const { OpenAI, APIError } = require('openai');
const { fetch, H2CClient } = require('undici');
const [base, protocol, ending, shortened, responses] = process.argv.slice(2);
// Without TLS HTTP/2 is spoken by prior knowledge.
const transport = protocol === 'http2' ? { fetch, fetchOptions: { dispatcher: new H2CClient(base) } } : {};
const client = (key) => new OpenAI({ baseURL: base + '/v1', apiKey: key, ...transport });
const say = (what) => console.log(JSON.stringify(what));
const failed = (err) => {
  if (!(err instanceof APIError)) throw err;
  return { status: err.status, error: err.code };
};

const ask = { model: 'tiny', max_tokens: 1000, messages: [{ role: 'user', content: 'hi' }] };
let pieces = 0;
try {
  for await (const chunk of await client(ending).chat.completions.create({ ...ask, stream: true })) {
    pieces += chunk.choices.filter((c) => c.delta.content).length;
  }
  say({ call: 'stream', pieces, error: 'none' });
} catch (err) {
  say({ call: 'stream', pieces, error: failed(err).error });
}

try {
  await client(ending).chat.completions.create(ask);
  say({ call: 'spent', error: 'none' });
} catch (err) {
  say({ call: 'spent', ...failed(err) });
}

const whole = await client(shortened).chat.completions.create(ask).withResponse();
say({
  call: 'whole', bound: whole.response.headers.get('x-quota-max-tokens'),
  tokens: whole.data.usage.completion_tokens, finish: whole.data.choices[0].finish_reason,
});

const streamed = await client(responses).responses.create({ model: 'tiny', input: 'hi', max_output_tokens: 1000, stream: true }).withResponse();
let last;
for await (const event of streamed.data) last = event;
say({
  call: 'responses', bound: streamed.response.headers.get('x-quota-max-tokens'),
  tokens: last.response.usage.output_tokens, finish: last.response.status + ' ' + last.response.incomplete_details.reason,
});
process.exit(0); // a kept connection would keep it alive
