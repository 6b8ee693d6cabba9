// A server of the package oauth2-mock-server. It checks little, and a test changes what it answers.

import { obey } from './commands.mjs';
import { OAuth2Server } from 'oauth2-mock-server';

const server = new OAuth2Server();
await server.issuer.keys.generate('RS256');
await server.start(0, '127.0.0.1');

// The change of the answers of the token endpoint, until there is another one:
//   status      their status
//   members     members of their bodies; null removes one
//   page        a page in place of the body
//   claims      claims of ID tokens; null removes one
//   header      members of the headers of ID tokens
//   signature   "none": ID tokens are unsigned; "another": their signature belongs to another token
let change = {};

// Its responses name it (RFC 9207).
server.service.on('beforeAuthorizeRedirect', ({ url }) => url.searchParams.set('iss', server.issuer.url));

server.service.on('beforeTokenSigning', ({ header, payload }) => {
  // Access tokens tell how the user logged in.
  if ('amr' in payload) return;
  changed(payload, change.claims);
  changed(header, change.header);
});

server.service.on('beforeResponse', (response, request) => {
  const { body } = response;
  const [, payload] = body.id_token?.split('.') ?? [];
  if (payload && change.signature === 'none') body.id_token = `${encoded({ alg: 'none', typ: 'JWT' })}.${payload}.`;
  if (payload && change.signature === 'another') {
    body.id_token = `${body.id_token.split('.').slice(0, 2).join('.')}.${body.access_token.split('.')[2]}`;
  }
  changed(body, change.members);
  response.statusCode = change.status ?? response.statusCode;
  if (change.page) request.res.json = () => request.res.type('html').send(change.page);
});

function changed(object, members = {}) {
  for (const [name, value] of Object.entries(members)) {
    if (value === null) delete object[name];
    else object[name] = value;
  }
}

function encoded(value) {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}

await obey(server.address().port, {
  /** From now on, answers are changed so. */
  change(members) {
    change = members;
  },
});
