// Test fixture for the Rust crate `bearer-auth`: a user with a browser, for one login.
//
//   BROWSER_TEST_CONFIG='{"chromium":"/…/chromium","url":"http://…","steps":[{"fill":{…},"click":"…"}]}' node browser.mjs
//
// Opens `url` in a new headless Chromium and does the steps. `fill` gives the text by field name;
// `click` is a selector, which it waits for. Then it waits for the program's page at the `redirect_uri`
// of `url`, prints one line of JSON about that page on stdout, and exits. It exits at once, and its
// Chromium with it, when stdin closes: start it with a PIPED stdin and hold the pipe. Profile and cache
// go to TMPDIR and HOME.
import { chromium } from 'playwright-core';

const config = JSON.parse(process.env.BROWSER_TEST_CONFIG);
const home = new URL(new URL(config.url).searchParams.get('redirect_uri'));

// Playwright kills Chromium when this process exits.
const stop = () => process.exit(1);
process.stdin.on('end', stop).on('close', stop).on('error', stop).resume();

const browser = await chromium.launch({
  executablePath: config.chromium,
  args: [
    '--disable-gpu',
    '--disable-quic',
    '--no-proxy-server',
    // The pages of oidc-provider load a font from the internet: only this machine is reachable.
    '--host-resolver-rules=MAP *.* ~NOTFOUND, EXCLUDE 127.0.0.1',
  ],
});

const page = await browser.newPage();

// Errors on the program's own page. The test expects none.
const problems = [];
const ours = (url) => URL.canParse(url) && new URL(url).host === home.host;
const problem = (url, what) => ours(url) && problems.push(what);
page.on('console', (message) => problem(message.location().url, `console: ${message.text()}`));
page.on('pageerror', (error) => problem(page.url(), `error: ${error}`));
page.on('requestfailed', (request) => problem(request.url(), `request: ${request.url()} ${request.failure()?.errorText}`));
await page.exposeFunction('violated', (url, directive) => problem(url, `policy: ${directive}`));
await page.addInitScript(() => document.addEventListener('securitypolicyviolation', (event) => {
  globalThis.violated(event.documentURI, event.effectiveDirective);
}));

// The response of the current page, and all requests to the program's port.
let landing;
const requests = [];
page.on('response', (response) => {
  if (ours(response.url())) requests.push(`${response.status()} ${new URL(response.url()).pathname}`);
  if (response.request().isNavigationRequest()) landing = response;
});

const titles = [];
try {
  await page.goto(config.url);
  for (const { fill = {}, click } of config.steps) {
    const target = page.locator(click);
    await target.waitFor();
    titles.push(await page.locator('h1').innerText());
    for (const [name, text] of Object.entries(fill)) {
      await page.locator(`[name="${name}"]`).fill(text);
    }
    await target.click();
  }
  await page.waitForURL((url) => url.host === home.host && url.pathname === home.pathname);
} catch (error) {
  console.error(`at ${page.url()}: ${await page.innerText('body')}`);
  throw error;
}

// The colours in both colour schemes that a user can set.
const colours = {};
for (const colorScheme of ['light', 'dark']) {
  await page.emulateMedia({ colorScheme });
  colours[colorScheme] = await page.evaluate(() => {
    const { color, backgroundColor } = getComputedStyle(document.body);
    return { text: color, background: backgroundColor };
  });
}
const seen = await page.evaluate(() => ({
  address: location.href,
  title: document.title,
  heading: document.querySelector('h1').innerText,
  text: document.querySelector('p').innerText,
  sign: getComputedStyle(document.querySelector('.sign')).borderRadius,
}));
const report = { titles, status: landing.status(), ...seen, colours, requests, problems };
await browser.close();
process.stdout.write(`${JSON.stringify(report)}\n`, () => process.exit(0));
