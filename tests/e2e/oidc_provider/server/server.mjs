// Test fixture for the Rust crate `bearer-auth`: oidc-provider on loopback plus a small protected API.
//
//   node server.mjs ['{"ttl":2,"clients":[{...}]}']      (or the same JSON in OIDC_TEST_CONFIG)
//
// Prints one line of JSON on stdout, {"issuer":"http://127.0.0.1:P1","api":"http://127.0.0.1:P2"},
// when both ports are open, and nothing else there. Exits when stdin closes: start it with a PIPED
// stdin and hold the pipe (with /dev/null as stdin it exits right away, maybe after the line).
// `clients`, when given, replaces the default clients below. `"sign_in":true` lets users sign in: see
// `signIn`. `"tls":{"cert":PEM,"key":PEM,"ca":[PEM]}` puts TLS on both ports: they request a client
// certificate and accept any, or none; those from `ca` count as verified.
// `"jwt_bearer":{"issuer":NAME,"keys":[JWK]}` lets the clients use the JWT bearer grant: see `jwtBearer`.
import { createHash } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';

// oidc-provider writes its notices with console.info (= stdout); send everything to stderr.
// This is why the package is imported dynamically, after these two lines.
console.info = console.error;
console.log = console.error;
const { Provider, errors } = await import('oidc-provider');
const { createLocalJWKSet, jwtVerify } = await import('jose');

process.stdin.on('end', () => process.exit(0)).on('close', () => process.exit(0))
  .on('error', () => process.exit(0)).resume();

// ---------------------------------------------------------------- configuration
const SCOPES = ['api:read', 'api:write', 'ingr.api'];
const RESOURCE = 'https://api.example.com';
const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';

const DEFAULT_CLIENTS = [
  { client_id: 'basic-client', client_secret: 'basic-secret', token_endpoint_auth_method: 'client_secret_basic' },
  { client_id: 'post-client', client_secret: 'post-secret', token_endpoint_auth_method: 'client_secret_post' },
  {
    // oidc-provider accepts only %x20-7E (RFC 6749 Appendix A, VSCHAR) in ids and secrets,
    // so there can be no `ü` or `€` here.
    client_id: 'id a+b%20c:d/e=f&g~h',
    client_secret: 's3 a+b%2Bc:d/e=f&g~h',
    token_endpoint_auth_method: 'client_secret_basic',
  },
];

const config = JSON.parse(process.argv[2] ?? process.env.OIDC_TEST_CONFIG ?? '{}');
const ttl = config.ttl ?? 60; // whole seconds; see the note on granularity at `expiresIn`
if (!Number.isInteger(ttl) || ttl < 1) throw new Error('ttl must be a positive integer');
const clients = (config.clients ?? DEFAULT_CLIENTS).map((client) => ({
  ...client,
  grant_types: [config.jwt_bearer ? JWT_BEARER : 'client_credentials'],
  response_types: [],
  redirect_uris: [],
}));

// A public client on loopback, and oidc-provider's development pages, which accept any login. The server
// rotates the refresh tokens of public clients, and revokes the grant when one is used twice.
function signIn() {
  if (!config.sign_in) return { clients: [], scopes: [], ttl: {} };
  return {
    clients: [{
      client_id: 'native-client',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      redirect_uris: ['http://127.0.0.1/callback', 'http://[::1]/callback'],
      // The refresh tokens of a public client are bound to the certificate, too (RFC 8705 section 4).
      ...(config.tls && { tls_client_certificate_bound_access_tokens: true }),
    }],
    scopes: ['openid', 'offline_access'],
    ttl: { AccessToken: ttl },
  };
}
const signIns = signIn();

// ---------------------------------------------------------------- counters
const zero = () => ({ token_requests: 0, token_requests_failed: 0, api_ok: 0, api_401: 0 });
let stats = zero();
const seenByApi = new Set(); // distinct tokens the API has accepted
const issued = new Set(); // every token the provider has issued

const createServer = (handler) => (config.tls
  ? https.createServer({ ...config.tls, requestCert: true, rejectUnauthorized: false }, handler)
  : http.createServer(handler));
const certificateOf = (req) => req.socket.getPeerX509Certificate?.();
const thumbprintOf = (req) => {
  const certificate = certificateOf(req);
  return certificate && createHash('sha256').update(certificate.raw).digest('base64url');
};

const listen = (server) => new Promise((resolve, reject) => {
  server.once('error', reject);
  server.listen(0, '127.0.0.1', () => resolve(`${config.tls ? 'https' : 'http'}://127.0.0.1:${server.address().port}`));
});

// ---------------------------------------------------------------- the provider
// The port must be known before the issuer is: listen first, attach the provider afterwards.
const oidcServer = createServer();
const issuer = await listen(oidcServer);

const provider = new Provider(issuer, {
  clients: [...clients, ...signIns.clients],
  scopes: [...SCOPES, ...signIns.scopes],
  clockTolerance: 0, // the default is 15 s, which would keep expired tokens alive
  // Expiry is whole seconds: exp = floor(now) + ttl, so a token really lives between ttl-1 and ttl s.
  ttl: { ClientCredentials: ttl, ...signIns.ttl },
  clientAuthMethods: [
    'client_secret_basic', 'client_secret_post', 'client_secret_jwt', 'private_key_jwt', 'none',
    ...(config.tls ? ['tls_client_auth', 'self_signed_tls_client_auth'] : []),
  ],
  enabledJWA: { clientAuthSigningAlgValues: ['HS256', 'RS256', 'PS256', 'ES256', 'EdDSA'] },
  features: {
    devInteractions: { enabled: signIns.clients.length > 0 },
    clientCredentials: { enabled: true },
    mTLS: {
      enabled: config.tls !== undefined,
      certificateBoundAccessTokens: true,
      selfSignedTlsClientAuth: true,
      tlsClientAuth: true,
      getCertificate: (ctx) => certificateOf(ctx.req),
      certificateAuthorized: (ctx) => ctx.socket.authorized,
      certificateSubjectMatches: (ctx, property, expected) =>
        property === 'tls_client_auth_subject_dn' && certificateOf(ctx.req).subject === expected,
    },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined, // no `resource` in the request: plain opaque token, no audience
      getResourceServerInfo: (_ctx, resource) => {
        if (resource !== RESOURCE) throw new errors.InvalidTarget();
        return { scope: SCOPES.join(' '), audience: RESOURCE, accessTokenFormat: 'opaque', accessTokenTTL: ttl };
      },
    },
  },
});

// RFC 7523 section 2.1, which oidc-provider does not implement: `jose` verifies signature, issuer,
// audience and times, and each assertion is accepted once. `sub` may be any user.
function jwtBearer({ issuer: signer, keys }) {
  const known = createLocalJWKSet({ keys });
  const audience = [issuer, `${issuer}/token`];
  const used = new Set();
  provider.registerGrantType(JWT_BEARER, async (ctx) => {
    const { assertion, scope } = ctx.oidc.params;
    const expected = { issuer: signer, audience, requiredClaims: ['sub', 'exp', 'iat', 'jti'] };
    const { payload: { jti } } = await jwtVerify(assertion, known, expected)
      .catch((err) => { throw new errors.InvalidGrant(err.message); });
    if (used.has(jti)) throw new errors.InvalidGrant('the assertion was used before');
    used.add(jti);
    const token = new provider.ClientCredentials({ client: ctx.oidc.client, scope });
    const value = await token.save();
    ctx.body = { access_token: value, expires_in: token.expiration, token_type: token.tokenType, scope };
  }, ['assertion', 'scope']);
}
if (config.jwt_bearer) jwtBearer(config.jwt_bearer);

// Counted before the response is sent, so that a client with a response finds it counted.
provider.use(async (ctx, next) => {
  const counted = ctx.method === 'POST' && ctx.path === '/token';
  try {
    await next();
  } finally {
    if (counted) {
      stats.token_requests += 1;
      if (ctx.status >= 400) stats.token_requests_failed += 1;
    }
  }
});
provider.on('client_credentials.saved', (token) => issued.add(token.jti)); // opaque: jti is the token
provider.on('server_error', (_ctx, err) => console.error('server_error', err));
oidcServer.on('request', provider.callback());

// ---------------------------------------------------------------- the API
async function bodyLength(req) {
  let n = 0;
  for await (const chunk of req) n += chunk.length;
  return n;
}

function reply(res, status, body, headers = {}) {
  const text = JSON.stringify(body);
  res.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text), ...headers });
  res.end(text);
}

function unauthorized(res, challenge, body) {
  stats.api_401 += 1;
  reply(res, 401, body, { 'www-authenticate': challenge });
}

async function resource(req, res) {
  const length = await bodyLength(req); // always read, so that the connection stays usable
  const [, scheme, value = ''] = /^(\S+)(?: +(.*))?$/.exec(req.headers.authorization ?? '') ?? [];
  if (scheme?.toLowerCase() !== 'bearer') return unauthorized(res, 'Bearer', { error: 'no token' });

  // find() itself gives undefined for unknown, destroyed and expired tokens.
  const token = await provider.ClientCredentials.find(value) ?? await provider.AccessToken.find(value);
  const boundTo = token?.['x5t#S256']; // RFC 8705 section 3
  const fits = boundTo === undefined || boundTo === thumbprintOf(req);
  if (!token?.isValid || !fits) {
    return unauthorized(res, 'Bearer error="invalid_token"', { error: 'invalid_token' });
  }

  seenByApi.add(value);
  stats.api_ok += 1;
  return reply(res, 200, { ok: true, token_n: seenByApi.size, body_length: length });
}

async function revokeAll() {
  let revoked = 0;
  for (const value of [...issued]) {
    issued.delete(value);
    const token = await provider.ClientCredentials.find(value);
    if (token) {
      await token.destroy();
      revoked += 1;
    }
  }
  return { revoked };
}

const routes = {
  'GET /resource': resource,
  'POST /resource': resource,
  'GET /control/stats': (_req, res) => reply(res, 200, stats),
  'POST /control/revoke-all': async (_req, res) => reply(res, 200, await revokeAll()),
  // Zeroes the counters and token_n; tokens stay valid.
  'POST /control/reset': (_req, res) => {
    stats = zero();
    seenByApi.clear();
    reply(res, 200, stats);
  },
};

const api = await listen(createServer(async (req, res) => {
  try {
    const route = routes[`${req.method} ${req.url.split('?')[0]}`];
    await (route ? route(req, res) : reply(res, 404, { error: 'not found' }));
  } catch (err) {
    console.error(err);
    if (!res.headersSent) reply(res, 500, { error: 'fixture failure' });
  }
}));

process.stdout.write(`${JSON.stringify({ issuer, api })}\n`);
