// Somebody without a browser: keeps cookies, follows where it is told to, fills in forms. Quick, and many at once.
import { Agent, request } from 'node:https';
import { world } from './world.mjs';

const agent = new Agent({ rejectUnauthorized: false, keepAlive: true, maxSockets: 64 });

export class Client {
  jar = new Map();

  // One request; nobody is followed.
  ask(url, { method = 'GET', headers = {}, body } = {}) {
    const place = new URL(url);
    const own = this.jar.get(place.host) ?? new Map();
    this.jar.set(place.host, own);
    const cookie = [...own].map(([name, value]) => `${name}=${value}`).join('; ');
    const navigation = { accept: 'text/html', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document', 'sec-fetch-site': 'cross-site' };
    const all = { ...navigation, ...(cookie && { cookie }), ...headers };
    return new Promise((resolve, reject) => {
      const asked = request(place, { method, headers: all, agent }, (answer) => {
        for (const line of answer.headers['set-cookie'] ?? []) {
          const pair = line.split(';')[0];
          const at = pair.indexOf('=');
          if (/; Max-Age=0/i.test(line)) own.delete(pair.slice(0, at));
          else own.set(pair.slice(0, at), pair.slice(at + 1));
        }
        let text = '';
        answer.setEncoding('utf8').on('data', (part) => { text += part; }).on('end', () => resolve({ status: answer.statusCode, headers: answer.headers, text }));
      });
      asked.setTimeout(60_000, () => asked.destroy(new Error(`no answer from ${place.pathname}`)));
      asked.on('error', reject).end(body);
    });
  }

  // Logs in, and gives the last answer of the gateway's callback.
  async logIn(person, to) {
    let url = `${world.https}/-/login?to=${encodeURIComponent(to)}`;
    let options = {};
    for (let step = 0; step < 10; step += 1) {
      const answer = await this.ask(url, options);
      options = {};
      if (url.startsWith(`${world.https}/-/callback`)) return answer;
      if (answer.status === 302) {
        url = new URL(answer.headers.location, url).href;
      } else if (answer.text.includes('name=password')) {
        const form = new URLSearchParams({ username: person, password: world.users[person].password });
        for (const [, name, value] of answer.text.matchAll(/<input type=hidden name=(\w+) value="([^"]*)">/g)) {
          form.set(name, value.replaceAll('&amp;', '&').replaceAll('&#39;', "'").replaceAll('&quot;', '"'));
        }
        url = `${world.oauth}/login`;
        options = { method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: form.toString() };
      } else {
        return answer;
      }
    }
    throw new Error('no end of redirects');
  }
}
