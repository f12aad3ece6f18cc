const http = require('http');
const os = require('os');
const isOdd = require('is-odd');

const port = Number(process.env.PORT);
const server = http.createServer((request, response) => {
  const { username } = os.userInfo();
  response.end(`a seven is odd: ${isOdd(7)}, served on ${port} by ${username} in ${process.env.NODE_ENV}\n`);
});

server.listen(port, '127.0.0.1', () => {
  if (!process.argv.includes('--check')) return;
  http.get({ port, host: '127.0.0.1' }, (answer) => {
    answer.pipe(process.stdout);
    answer.on('end', () => server.close());
  });
});
