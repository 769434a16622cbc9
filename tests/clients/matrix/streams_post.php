<?php
// One POST with PHP's streams; `--proxy` is what a program has to add to go through the proxy.

$http = [
    'method' => 'POST',
    'header' => 'Content-Type: application/json',
    'content' => '{"video": "intro.mp4"}',
    'timeout' => 60,
];
if (in_array('--proxy', $argv)) {
    $http['proxy'] = str_replace('http://', 'tcp://', getenv('HTTPS_PROXY'));
}
$body = file_get_contents(end($argv), false, stream_context_create(['http' => $http]));
if ($body === false) {
    exit(1);
}
$head = [];
foreach ($http_response_header as $line) {
    [$name, $value] = explode(':', $line, 2) + [1 => ''];
    $head[strtolower($name)] = trim($value);
}
echo json_encode([
    'client' => 'php streams',
    'status' => (int) explode(' ', $http_response_header[0])[1],
    'attempts' => $head['samekey-attempts'] ?? '',
    'stop' => $head['samekey-stop'] ?? '',
    'id' => json_decode($body, true)['id'] ?? '',
    'key' => $head['idempotency-key'] ?? '',
]), "\n";
