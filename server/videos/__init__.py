"""Videos over HTTP: routes, shapes of requests and answers, the live stream."""
