<?php
// One POST with PHP's curl functions.

$head = [];
$curl = curl_init($argv[1]);
curl_setopt_array($curl, [
    CURLOPT_POSTFIELDS => '{"video": "intro.mp4"}',
    CURLOPT_HTTPHEADER => ['Content-Type: application/json'],
    CURLOPT_RETURNTRANSFER => true,
    CURLOPT_TIMEOUT => 60,
    CURLOPT_HEADERFUNCTION => function ($curl, $line) use (&$head) {
        [$name, $value] = explode(':', $line, 2) + [1 => ''];
        $head[strtolower($name)] = trim($value);
        return strlen($line);
    },
]);
$body = curl_exec($curl);
if ($body === false) {
    fwrite(STDERR, curl_error($curl) . "\n");
    exit(1);
}
echo json_encode([
    'client' => 'php curl',
    'status' => curl_getinfo($curl, CURLINFO_RESPONSE_CODE),
    'attempts' => $head['samekey-attempts'] ?? '',
    'stop' => $head['samekey-stop'] ?? '',
    'id' => json_decode($body, true)['id'] ?? '',
    'key' => $head['idempotency-key'] ?? '',
]), "\n";
