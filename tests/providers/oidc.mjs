// A server of the package oidc-provider, with the pages that it has for development. Its settings:
//   clients   the metadata of the clients; the member certificate, a PEM, is that of a client that signs, or presents it
//   rotates   true: each refresh replaces the refresh token; absent: the rule of the package
//   tls       the members key, cert and ca, each a PEM, of a second port, for clients that present a certificate (RFC 8705)

import { obey, settings } from './commands.mjs';
import { X509Certificate, generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import Provider from 'oidc-provider';
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js';

const adapter = createMemoryAdapter();
const port = await listening(createServer(serve));
const origin = `http://localhost:${port}`;
const aliases = settings.tls && (await endpointsForCertificates());

// How the server gets the certificate that a client presents: the package leaves that to its users.
const mTLS = {
  enabled: true,
  certificateBoundAccessTokens: true,
  selfSignedTlsClientAuth: true,
  tlsClientAuth: true,
  getCertificate(ctx) {
    const { raw } = ctx.socket.getPeerCertificate?.() ?? {};
    return raw && new X509Certificate(raw);
  },
  certificateAuthorized(ctx) {
    return ctx.socket.authorized;
  },
  certificateSubjectMatches(ctx, property, expected) {
    return property === 'tls_client_auth_san_uri' && mTLS.getCertificate(ctx).subjectAltName === `URI:${expected}`;
  },
};

// The outcomes of requests to the token endpoint, and the grants that were revoked.
const outcomes = [];
let revoked = 0;
let provider = started();

async function listening(server) {
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return server.address().port;
}

function serve(request, response) {
  provider.callback()(request, response);
}

async function endpointsForCertificates() {
  // Whether a certificate is good is for the server to say, not for the handshake.
  const options = { ...settings.tls, requestCert: true, rejectUnauthorized: false };
  const secured = `https://localhost:${await listening(createTlsServer(options, serve))}`;
  return { token_endpoint: `${secured}/token`, revocation_endpoint: `${secured}/token/revocation` };
}

/** A provider with a new key, which goes on with what is stored. */
function started() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const one = new Provider(origin, {
    adapter,
    clients: settings.clients.map(client),
    cookies: { keys: ['a key of the tests'] },
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'RS256', use: 'sig' }] },
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      revocation: { enabled: true },
      ...(aliases && { mTLS }),
    },
    ...(aliases && { clientAuthMethods: ['tls_client_auth', 'self_signed_tls_client_auth'] }),
    ...(aliases && { discovery: { mtls_endpoint_aliases: aliases } }),
    ...(settings.rotates && { rotateRefreshToken: true }),
  });
  one.on('grant.success', (ctx) => outcomes.push({ grant_type: ctx.oidc.params.grant_type }));
  one.on('grant.error', (ctx, error) => {
    outcomes.push({ grant_type: ctx.oidc?.params?.grant_type, error: error.error, detail: error.error_detail });
  });
  one.on('grant.revoked', () => (revoked += 1));
  return one;
}

function client({ certificate, ...metadata }) {
  if (!certificate) return metadata;
  const { publicKey, raw, subjectAltName } = new X509Certificate(certificate);
  const key = publicKey.export({ format: 'jwk' });
  switch (metadata.token_endpoint_auth_method) {
    case 'tls_client_auth':
      return { ...metadata, tls_client_auth_san_uri: subjectAltName.replace('URI:', '') };
    case 'self_signed_tls_client_auth':
      return { ...metadata, jwks: { keys: [{ ...key, x5c: [raw.toString('base64')] }] } };
    default:
      return { ...metadata, jwks: { keys: [key] } };
  }
}

await obey(port, {
  /** Replaces the key that signs, as if there had never been another one. */
  rotate() {
    provider = started();
  },

  /** What was asked for so far, and what became of it. */
  outcomes() {
    return { outcomes, revoked };
  },

  /** What a token is here. Null: it is not good, or not any more. */
  async find({ token }) {
    for (const kind of ['AccessToken', 'ClientCredentials', 'RefreshToken']) {
      const found = await provider[kind].find(token);
      if (!found) continue;
      const { accountId: account = null, scope = '', consumed, 'x5t#S256': certificate = null } = found;
      return { kind, account, scope, spent: Boolean(consumed), certificate };
    }
    return null;
  },
});
