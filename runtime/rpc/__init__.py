"""The gRPC edge: conversion, status mapping, servicers. With the client, the only user of stubs and grpc."""
